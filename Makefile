# Every target sets up what it needs: ComfyUI and a virtual environment under .comfyui/ (see tests/tools/comfyui/install.py).
#   PYTHON          the Python (3.11 or newer) that makes the environment
#   COMFYUI_PATH    your own ComfyUI instead of the pinned one; it is only read
#   COMFYUI_PYTHON  the Python of that ComfyUI
#   COMFYUI_VERSION an older ComfyUI that is set up like the pinned one: 0.16.3, 0.18.2 or 0.24.0
#   CHROMIUM        the browser for the browser tests; else an installed one, else one is set up (see tests/tools/browser/install.py)
#   JOBS            how many tests run side by side (2; 1.5 GB of memory each; 0 tells most about a failure)

PYTHON ?= python3
JOBS ?= 2
HOST = $(PYTHON) -m tests.tools.comfyui
RUN = $(HOST) run
# Files side by side, each whole in one process: what a file's tests share is set up once. Every process has one thread.
# They begin in the order of tests/conftest.py: the longest first.
SIDE_BY_SIDE = -n $(JOBS) --dist loadfile --no-loadscope-reorder
TEST = $(RUN) -m pytest -q -m "not matrix and not thorough" $(SIDE_BY_SIDE)
THOROUGH = -m pytest -q -m "thorough and not matrix" $(SIDE_BY_SIDE)
CORE = tests/core $(addprefix tests/test_tools/,comfyui editing guidance perception toy_world workflows)
INSIDE = tests/nodes tests/host tests/test_tools/gpu
SERVED = tests/workflows tests/test_tools/servers
BROWSED = tests/browser tests/test_tools/browser

.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' $(MAKEFILE_LIST))

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-16s %s\n' "$$name" "$$text"; done

host: ## set up the real ComfyUI (once; about 3 minutes and 7 GB)
	@$(HOST) install

test: lint test-oldest browser ## lint and a test of every claim
	$(TEST) $(CORE) $(INSIDE) $(SERVED) $(BROWSED)

test-thorough: test-evaluate test-ray browser ## the rest of CI: further cases, the other renderer, the evaluation
	$(HOST) oldest $(THOROUGH) tests/core
	$(RUN) $(THOROUGH) $(CORE) $(INSIDE) $(SERVED) $(BROWSED)

lint: host ## check style and layers
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

test-core: host ## tests of nodes/core and of the tools, without ComfyUI
	$(TEST) $(CORE)

test-oldest: host ## core tests, and the pack in ComfyUI, on Python 3.10, where this machine has one (once 4 GB more)
	$(HOST) oldest -m pytest -q -m "not thorough" $(SIDE_BY_SIDE) tests/core tests/oldest

test-host: host ## tests of the nodes and of nodes/host, ComfyUI in the same process
	$(TEST) $(INSIDE)

test-workflows: host ## tests that queue workflows on the real server
	$(TEST) $(SERVED)

test-evaluate: host ## tests of the evaluation, on real servers of which some are killed
	$(TEST) tests/test_tools/evaluate

test-ray: host ## tests of the evaluation on Ray, an optional extra with an environment of its own
	$(HOST) run --with=ray -m pytest -q tests/test_tools/ray

test-matrix: host ## every sampler with every scheduler, of which `make test` runs a sample
	$(RUN) -m pytest -q -m matrix $(SIDE_BY_SIDE) tests/host tests/workflows

test-hosts: host ## node, host and workflow tests on every ComfyUI from 0.16.3 on (HOSTS="0.16.3 0.24.0" TESTS=tests/host: only these)
	$(PYTHON) -m tests.tools.comfyui.hosts $(HOSTS) -- $(SIDE_BY_SIDE) $(or $(TESTS),tests/nodes tests/host tests/workflows)

browser: host ## find a Chromium, or set one up
	@$(RUN) -m tests.tools.browser.install

test-browser: browser ## tests in a real browser on the real server; screenshots in output/browser
	$(TEST) $(BROWSED)

demo: host ## make the pictures of the pack's main job and print their path
	$(RUN) -m tests.tools.demo

toy: host ## train the toy checkpoint anew (90 minutes on 2 cores)
	$(RUN) -m tests.tools.toy_world.train

toy-two: host ## train the checkpoint of the second toy world, on from the first (goes on where it was broken off)
	$(RUN) -m tests.tools.toy_world.train_two

toy-transformer: host ## train the toy transformer anew (goes on where it was broken off)
	$(RUN) -m tests.tools.toy_world.train_transformer

toy-quality: host ## measure the toy checkpoints: the tables of their model cards (ARGS=--help)
	$(RUN) -m tests.tools.toy_world.quality $(ARGS)

word-kinds: host ## make nodes/core/words/english/data/word_kinds.txt.bz2 anew from WordNet (DICT=its dict folder)
	$(RUN) -m tests.tools.wordnet $(DICT)

workflows: host ## lay out workflows/*.json anew from workflows/api/*.json
	$(RUN) -m tests.tools.workflows.layout

blueprint: browser ## make subgraphs/*.json from the workflow, in the real front end
	$(RUN) -m tests.tools.browser.blueprint

ui-pictures: browser ## make the screenshots js/docs/images/ui_*.webp in the real front end
	$(RUN) -m tests.tools.browser.pictures

ui-recording: browser ## make js/docs/images/ui_pause.webp, a run that pauses, in the real front end
	$(RUN) -m tests.tools.browser.recording

thumbnails: host ## make the gallery pictures workflows/*.jpg from real runs, and the README's sheets
	$(RUN) -m tests.tools.workflows.thumbnails
	$(RUN) -m tests.tools.workflows.editing_sheet

help-pictures: host ## make the pictures of the help pages from one real run
	$(RUN) -m tests.tools.workflows.help_pictures

same-pictures: host ## run the workflows of an older version on it and on this one, bit for bit (OLD=revision)
	$(RUN) -m tests.tools.workflows.same_pictures $(if $(OLD),--old $(OLD))

evaluate: host ## compare methods on a set of pictures (ARGS=--help tells what it can do)
	$(RUN) -m tests.tools.evaluate $(ARGS)

evaluate-ray: host ## the same on a Ray cluster (RAY=address; none: this machine)
	$(HOST) run --with=ray -m tests.tools.evaluate $(ARGS) --ray $(RAY)

bench-pipelines: host ## measure the pipelines on the fixed list of cases (ARGS="--toy transformer --cases 14")
	$(RUN) -m tests.benchmarks.pipelines $(ARGS)

bench-editing: host ## compare editing by attention with image-to-image (ARGS="--cases 10")
	$(RUN) -m tests.benchmarks.editing $(ARGS)

bench-colours: host ## measure colour words that are added and weighed by Prompt-to-Prompt (ARGS="--prompts 7")
	$(RUN) -m tests.benchmarks.colours $(ARGS)

bench-appearance: host ## measure how a picture gets the look of another on the toy world (ARGS="--cases 7")
	$(RUN) -m tests.benchmarks.appearance $(ARGS)

bench-inversion: host ## how well pictures come back from their noise (ARGS="--edit --steps 25")
	$(RUN) -m tests.benchmarks.round_trips $(ARGS)

bench-regional-prompts: host ## measure prompts for parts of a picture on the toy world (ARGS="--cases 7")
	$(RUN) -m tests.benchmarks.regional_prompts $(ARGS)

bench-perception: host ## measure what the model sees without training, on held-out pictures (ARGS="--pictures 20")
	$(RUN) -m tests.benchmarks.perception $(ARGS)

bench-guidance: host ## measure guidance on prompts with two subjects (ARGS="--prompts 10 --out found.json"; an hour on one core)
	$(RUN) -m tests.benchmarks.guidance $(ARGS)

bench: host ## run every tests/benchmarks/bench_*.py
	@set -e; for file in $(wildcard tests/benchmarks/bench_*.py); do \
	  name=$$(basename $$file .py); echo "== $$name"; $(RUN) -m tests.benchmarks.$$name; done

gpu: host ## check and measure on an NVIDIA GPU (ARGS=--help); without one exits 1, or 0 with ARGS=--allow-none
	$(RUN) -m tests.tools.gpu $(ARGS)

serve: host ## open this ComfyUI in your browser (PORT=8188)
	$(HOST) serve --port $(or $(PORT),8188)

format: host ## format the code
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean: ## remove ComfyUI, its environment and all outputs (7 GB; the next target sets them up again)
	rm -rf .comfyui output .pytest_cache .ruff_cache .hypothesis
