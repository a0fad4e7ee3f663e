# Everything a newcomer needs: `make run` for the demo, `make test` for the tests.
# The virtual environment is made by the first target that needs it, from the lock file.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
BIN = .venv/bin
READY = .venv/.ready

.PHONY: run test check bench soak lock setup clean

run: setup
	@$(BIN)/dispatch-controller demo

test: setup
	@sh tools/system-packages.sh
	@$(BIN)/pytest tests/dashboard -m "not bench and not soak" $(PYTEST_ARGS)
	@$(BIN)/pytest -n 2 --dist loadfile --ignore tests/dashboard -m "not bench and not soak" \
		$(PYTEST_ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	@sh tools/system-packages.sh
	@$(BIN)/dispatch-controller bench

soak: setup
	@$(BIN)/pytest -m soak --timeout 7200 $(PYTEST_ARGS)

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@sh tools/setup.sh "$(PYTHON)"
	@touch $(READY)

lock:
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header \
		--python-version 3.11 --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv build dist
