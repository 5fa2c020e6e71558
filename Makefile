# make demo     install, train 20 episodes, evaluate, record, plot: the whole tool in minutes
# make play     watch a trained model clear World 1-1, or STAGE=1-2, 1-3, 1-4, 2-1, 2-3, 4-1 or full: in a window or, without a display, as a video
# make train    start a real run:  make train RUN=my_run ARGS="--stage 1-1 --num-episodes 5000"
# make test     install and run the test suite
# make check    linter, formatter and type checker
# make bench    measure the speed, against other libraries too:  make bench ONLY=1,5
# make gpu-check  what only a GPU can tell, in 8 minutes; installs nothing, see its rule:  make gpu-check MINUTES=4
# make torture  stop runs in every way, damage every file, fuzz every flag: over an hour
# make cluster-test  games on clusters of Ray, whose nodes are killed: twenty minutes
# make soak     two hours of training, with memory and open files recorded
# make stacks   the environment's tests on every Python from 3.10 to 3.13 that is installed
# make matrix   all but the slow tests on each of them, with everything installed:  make matrix MATRIX="3.11 3.13" ARGS="-m quick"
# make docker   build the image and play a game with it; without Docker, its steps in a virtual environment
# make wheel    build the wheel, install it elsewhere, and play a game with it
#
# PYTHON=python3.12 make ... chooses the interpreter.

PYTHON ?= python3
VENV ?= .venv
STAGE ?= 1-1
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt
PIP_INSTALL_NO_DEPS := $(PIP_INSTALL) --no-deps -r requirements-no-deps.txt

# The interpreter of the other emulator stack, if there is one: 3.13 for 3.10 to 3.12 and reversed.
OTHERS := $(if $(filter 3.10 3.11 3.12,$(VERSION)),3.13,3.12 3.11 3.10)
find_python = $(firstword $(foreach v,$(1),$(shell for p in python$(v) $$HOME/.pyenv/versions/$(v).*/bin/python; do \
	"$$p" -c "import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$(v)')" 2>/dev/null && echo "$$p" && break; done)))
OTHER_PYTHON ?= $(call find_python,$(OTHERS))

.PHONY: demo play train named test check bench gpu-check gpu-check-needs torture cluster-test soak stacks matrix docker wheel preflight

preflight:
	@test -n "$(VERSION)" || { echo "error: '$(PYTHON)' does not run: name a Python 3.10 to 3.13, as in PYTHON=python3.12 make ..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: Python $(VERSION) is too old: name a Python 3.10 to 3.13, as in PYTHON=python3.12 make ..." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: this Python has no venv module: install it (on Debian: apt install python3-venv)" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 13))' || command -v g++ >/dev/null || { echo "error: g++ is missing, and nes-py is built from source on Python $(VERSION): install it (on Debian: apt install g++), or use Python 3.13, which needs none" >&2; exit 2; }

# A virtual environment of another Python is replaced.
$(VENV)/.ready-$(VERSION): requirements.txt requirements-no-deps.txt constraints.txt | preflight
	@echo "installing into $(VENV) (Python $(VERSION)) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python $(PIP_INSTALL) -r requirements.txt
	@$(BIN)/python $(PIP_INSTALL_NO_DEPS)
	@touch $@

$(VENV)/.ready-for-tests-$(VERSION): pyproject.toml $(VENV)/.ready-$(VERSION)
	@$(BIN)/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

# Only what the environment needs: no torch. The package itself, for scripts that lie elsewhere.
.venv-emulator-%/.ready: requirements.txt requirements-no-deps.txt
	@echo "installing the emulator for Python $* ..."
	@$(call find_python,$*) -m venv --clear $(@D)
	@grep -E '^(gym|nes-py|stable-retro|numpy|opencv)' requirements.txt > $(@D)/requirements.txt
	@$(@D)/bin/python $(PIP_INSTALL) pytest -r $(@D)/requirements.txt
	@$(@D)/bin/python $(PIP_INSTALL_NO_DEPS) -e .
	@touch $@

RUN ?= demo-$(DEMO_TIME)
DEMO_TIME := $(shell date +%Y%m%d-%H%M%S)
DEMO_ARGS := --stage 1-1 --num-episodes 20 --learning-starts 500 --eps-decay 2000 --eval-episodes 10

demo: $(VENV)/.ready-$(VERSION)
	$(BIN)/python progressive_mario_trainer.py --run-name $(RUN) $(DEMO_ARGS)
	$(BIN)/python eval_mario.py --model-path models/$(RUN).pth --record --plot
	$(BIN)/python visualize_training.py --run-name $(RUN)
	@echo
	@echo "model:       models/$(RUN).pth"
	@echo "checkpoints: checkpoints/$(RUN)/"
	@echo "statistics:  stats/$(RUN)/"
	@echo "plots:       stats/$(RUN)/training.png, videos/$(RUN)_1-1.png"
	@echo "video:       videos/$(RUN)_1-1.mp4"

play: $(VENV)/.ready-$(VERSION)
	$(BIN)/python eval_mario.py --model-path pretrained/$(STAGE).pth \
		$$($(BIN)/python -c 'from mario_rl.games.window import can_open; print("--render" if can_open() else "--record")')

named:
	@test "$(origin RUN)" = "command line" || { echo 'usage: make train RUN=name ARGS="--stage 1-1 ..."' >&2; exit 2; }

train: named $(VENV)/.ready-$(VERSION)
	$(BIN)/python progressive_mario_trainer.py --run-name $(RUN) $(ARGS)

test: $(VENV)/.ready-for-tests-$(VERSION) $(if $(OTHER_PYTHON),.venv-emulator-$(shell $(OTHER_PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')/.ready)
	$(if $(OTHER_PYTHON),MARIO_RL_OTHER_PYTHON=$(CURDIR)/$(dir $(lastword $^))bin/python) $(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.ready-for-tests-$(VERSION)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The same Python as ours, so that all play on the same emulator.
$(VENV)-peers/.ready-$(VERSION): benchmarks/requirements-peers.txt requirements.txt requirements-no-deps.txt constraints.txt | preflight
	@test "$(VERSION)" != 3.10 || { echo "error: not all the libraries to compare with run on Python 3.10: PYTHON=python3.11 make bench" >&2; exit 2; }
	@echo "installing the libraries to compare with into $(@D) ..."
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) -r benchmarks/requirements-peers.txt
	@$(@D)/bin/python $(PIP_INSTALL_NO_DEPS)
	@touch $@

bench: $(VENV)/.ready-$(VERSION) $(VENV)-peers/.ready-$(VERSION)
	MARIO_RL_PEERS_PYTHON=$(CURDIR)/$(VENV)-peers/bin/python $(BIN)/python -m benchmarks $(ONLY)

# $(PYTHON) as it is, with PyTorch and NumPy 1 or 2, on a machine that may have no package registry. What else is
# needed lies in a folder on PYTHONPATH; make it on a machine of the same system with the same version of Python:
#   python3 -m pip install --no-deps --target games $(make -s gpu-check-needs)
#   PYTHONPATH=games make gpu-check
# docs/performance.md says what can be deleted in that folder.
GPU_CHECK_NEEDS := gymnasium farama-notifications cloudpickle tqdm opencv-python-headless pandas python-dateutil six psutil \
	$(if $(filter 3.10 3.11 3.12,$(VERSION)),gym==0.26.2 gym-notices gym-super-mario-bros==7.4.0 nes-py==8.2.1 stable-retro==1.0.0,\
	gym-super-mario-bros==9.1.0 nes-py==9.0.1 stable-retro==1.0.1)
MINUTES ?= 8
gpu-check:
	@$(PYTHON) -m benchmarks.gpu_check --minutes $(MINUTES) $(ARGS)
gpu-check-needs:
	@echo $(GPU_CHECK_NEEDS)

torture: $(VENV)/.ready-for-tests-$(VERSION)
	cd tests && $(abspath $(BIN))/python -m torture $(ARGS)

cluster-test: $(VENV)/.ready-for-tests-$(VERSION)
	@$(BIN)/python $(PIP_INSTALL) -e '.[cluster]'
	$(BIN)/python -m pytest -o addopts= -v tests/test_ray.py $(ARGS)
	cd tests && $(abspath $(BIN))/python -m torture.cluster

soak: $(VENV)/.ready-for-tests-$(VERSION)
	cd tests && $(abspath $(BIN))/python -m torture.soak $(ARGS)

STACKS := $(foreach v,3.10 3.11 3.12 3.13,$(if $(call find_python,$(v)),$(v)))
stacks: $(STACKS:%=.venv-emulator-%/.ready)
	@for v in $(STACKS); do echo "Python $$v"; .venv-emulator-$$v/bin/python -m pytest -q -o addopts= tests/test_env.py || exit 1; done

.venv-matrix-%/.ready: requirements.txt requirements-no-deps.txt constraints.txt pyproject.toml
	@echo "installing everything for Python $* ..."
	@$(call find_python,$*) -m venv $(@D)
	@$(@D)/bin/python $(PIP_INSTALL) -e '.[dev]'
	@$(@D)/bin/python $(PIP_INSTALL_NO_DEPS)
	@touch $@

MATRIX ?= $(STACKS)
matrix: $(MATRIX:%=.venv-matrix-%/.ready)
	@for v in $(MATRIX); do echo "Python $$v"; .venv-matrix-$$v/bin/python -m pytest -m "not slow" $(ARGS) || exit 1; done

docker:
	@if docker info >/dev/null 2>&1; then docker build --tag mario-rl . && docker run --rm mario-rl mario-eval --model-path 1-1 --episodes 1; \
	else echo "Docker does not run here: the steps of the Dockerfile in a virtual environment"; $(call find_python,3.13) tests/dockerfile.py; fi

# An environment of its own and an empty folder, so that nothing of the checkout is within reach. To compile
# all that is installed would take longer than the game.
wheel: | preflight
	@rm -rf build dist
	@$(PYTHON) -m venv --clear .venv-wheel
	@.venv-wheel/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@.venv-wheel/bin/python $(PIP_INSTALL) --no-compile dist/*.whl
	@rm -rf build/empty && mkdir -p build/empty && cd build/empty && ../../.venv-wheel/bin/mario-eval --model-path 1-1 --episodes 1 --json
