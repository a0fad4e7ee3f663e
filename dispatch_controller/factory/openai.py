"""The chat completions protocol (platform.openai.com/docs/api-reference/chat), spoken by many."""

from __future__ import annotations

from urllib.parse import urlsplit

from dispatch_controller.factory.endpoint import count_of, events, load, pick, text_of
from dispatch_controller.factory.model import Answer, Call
from dispatch_controller.settings_sections import ModelGenerator


class OpenAI:
    name = "openai"

    def call(self, settings: ModelGenerator, key: str | None, prompt: str) -> Call:
        # Its own newer models want the new name of the limit; what is compatible knows the old one.
        own = urlsplit(settings.base_url).hostname == "api.openai.com"
        body: dict[str, object] = {
            "model": settings.model,
            "max_completion_tokens" if own else "max_tokens": settings.max_tokens,
            "messages": [{"role": "user", "content": prompt}],
            "stream": settings.stream,
        }
        if settings.stream:
            body["stream_options"] = {"include_usage": True}
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return Call("/v1/chat/completions", headers, body)

    def read(self, body: bytes) -> Answer | None:
        data = load(body)
        message = pick(data, "choices", 0, "message")
        if not isinstance(message, dict):
            return None
        return _answer(
            text_of(message.get("content")),
            text_of(message.get("refusal")),
            text_of(pick(data, "choices", 0, "finish_reason")),
            data.get("usage"),
        )

    def read_stream(self, body: bytes) -> Answer:
        text: list[str] = []
        refusal: list[str] = []
        finish, error, usage = "", None, None
        for event in events(body):
            text.append(text_of(pick(event, "choices", 0, "delta", "content")))
            refusal.append(text_of(pick(event, "choices", 0, "delta", "refusal")))
            finish = text_of(pick(event, "choices", 0, "finish_reason")) or finish
            usage = event.get("usage") or usage
            if "error" in event:
                error = text_of(pick(event, "error", "message")) or "an error"
        return _answer("".join(text), "".join(refusal), finish, usage, error)


def _answer(
    text: str, refusal: str, finish: str, usage: object, error: str | None = None
) -> Answer:
    if finish == "content_filter" and not refusal:
        refusal = "its content filter ended the answer"
    return Answer(
        text,
        finish == "stop",
        count_of(pick(usage, "prompt_tokens")),
        count_of(pick(usage, "completion_tokens")),
        refusal or None,
        error,
    )
