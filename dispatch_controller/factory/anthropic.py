"""The Messages protocol (docs.anthropic.com/en/api/messages, and /messages-streaming)."""

from __future__ import annotations

from dispatch_controller.factory.endpoint import count_of, events, load, pick, text_of
from dispatch_controller.factory.model import Answer, Call
from dispatch_controller.settings_sections import ModelGenerator

VERSION = "2023-06-01"
_ENDS = ("end_turn", "stop_sequence", "refusal")


class Anthropic:
    name = "anthropic"

    def call(self, settings: ModelGenerator, key: str | None, prompt: str) -> Call:
        headers = {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}
        body = {
            "model": settings.model,
            "max_tokens": settings.max_tokens,
            "messages": [{"role": "user", "content": prompt}],
            "stream": settings.stream,
        }
        return Call("/v1/messages", headers, body)

    def read(self, body: bytes) -> Answer | None:
        data = load(body)
        blocks = data.get("content")
        if not isinstance(blocks, list):
            return None
        text = "".join(
            text_of(pick(block, "text")) for block in blocks if pick(block, "type") == "text"
        )
        return _answer(
            text,
            text_of(data.get("stop_reason")),
            count_of(pick(data, "usage", "input_tokens")),
            count_of(pick(data, "usage", "output_tokens")),
        )

    def read_stream(self, body: bytes) -> Answer:
        text: list[str] = []
        stop, error = "", None
        tokens_in = tokens_out = None
        for event in events(body):
            match event.get("type"):
                case "message_start":
                    tokens_in = count_of(pick(event, "message", "usage", "input_tokens"))
                case "content_block_delta" if pick(event, "delta", "type") == "text_delta":
                    text.append(text_of(pick(event, "delta", "text")))
                case "message_delta":
                    stop = text_of(pick(event, "delta", "stop_reason")) or stop
                    tokens_out = count_of(pick(event, "usage", "output_tokens"))
                case "error":
                    error = text_of(pick(event, "error", "message")) or "an error"
        return _answer("".join(text), stop, tokens_in, tokens_out, error)


def _answer(
    text: str, stop: str, tokens_in: int | None, tokens_out: int | None, error: str | None = None
) -> Answer:
    refusal = (text or "it gave no reason") if stop == "refusal" else None
    return Answer(text, stop in _ENDS, tokens_in, tokens_out, refusal, error)
