# lmpipe: the training of a large language model as small Unix programs. `make help` lists the targets.

PREFIX ?= /usr/local
DESTDIR ?=
# Put before each program's name at install, for those whose `dedup` is something else: PROGRAM_PREFIX=lm-
PROGRAM_PREFIX ?=
VERSION = 0.1.0

CC ?= cc
CXX ?= c++
PKG_CONFIG ?= pkg-config
PYTHON ?= python3
NVCC ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc /usr/local/cuda/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
# Everything that is built lies here; a second build (sanitizers, clang) takes another folder.
B ?= build
SAN ?=

PACKAGES = zlib libzstd libpcre2-8 libxxhash simdjson
WARNINGS = -Wall -Wextra -Wshadow -Wpointer-arith
C_WARNINGS = $(WARNINGS) -Wstrict-prototypes -Wmissing-prototypes
OPTIMIZE = -O2 -g
CFLAGS ?= $(OPTIMIZE)
CXXFLAGS ?= $(OPTIMIZE)
SANITIZE = $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
PACKAGE_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES) 2>/dev/null)
PACKAGE_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES) 2>/dev/null || echo -lz -lzstd -lpcre2-8 -lxxhash -lsimdjson)
# libyaml, for lmeval's task definitions: where it is.
YAML := $(shell $(PKG_CONFIG) --exists yaml-0.1 2>/dev/null && echo yes)
YAML_CFLAGS := $(if $(YAML),-DHAVE_YAML $(shell $(PKG_CONFIG) --cflags yaml-0.1))
YAML_LIBS := $(if $(YAML),$(shell $(PKG_CONFIG) --libs yaml-0.1))
ALL_CPPFLAGS = -D_GNU_SOURCE -DLMPIPE_VERSION='"$(VERSION)"' -Ilibcommon -I. -I$(B) $(PACKAGE_CFLAGS) $(CPPFLAGS)
ALL_CFLAGS = -std=gnu11 $(C_WARNINGS) -fopenmp -fno-math-errno -ffp-contract=off $(SANITIZE) $(CFLAGS)
ALL_CXXFLAGS = -std=c++17 $(WARNINGS) $(SANITIZE) $(CXXFLAGS)
# Kernels choose their instructions at run time; contraction to fused multiply-add is theirs alone.
KERNEL_CFLAGS = -O3 -ffp-contract=fast -fno-trapping-math -funroll-loops
LIBS = $(PACKAGE_LIBS) $(YAML_LIBS) -lstdc++ -lm -ldl -lpthread $(LDLIBS)

TOOLS = dedup qfilter bpe-train tokenize mixshard pretrain scalefit sft dpo rmtrain rejsample generate lmeval
BUILT = $(TOOLS:%=$(B)/bin/%)
LIBRARY_C := $(wildcard libcommon/*/*.c kernels/*.c kernels/cpu/*.c)
LIBRARY_CC := $(wildcard libcommon/*/*.cc)
LIBRARY_O = $(LIBRARY_C:%.c=$(B)/%.o) $(LIBRARY_CC:%.cc=$(B)/%.o)
# Loaded into programs under test.
PRELOAD = $(patsubst tests/preload/%.c,$(B)/tests/preload/%.so,$(filter-out $(if $(MPI_COMPILER),,%/mpi_bytes.c),$(wildcard tests/preload/*.c)))
SELFTEST = $(B)/tests/unit/emulation
RACES = $(if $(SAN),,$(B)/tests/unit/races)
UNIT = $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/*.c))
# The CUDA kernels: a shared object where the toolkit has cuBLASLt, and the same sources on the host for tests.
CUDA_SOURCES := $(wildcard kernels/cuda/*.cu)
CUDA_O = $(CUDA_SOURCES:kernels/%.cu=$(B)/gpu/%.o)
EMULATION_O = $(patsubst %,$(B)/emulated/%.o,emulation tensor wgmma memory)
EMULATED_O = $(CUDA_SOURCES:kernels/%.cu=$(B)/emulated/%.o) $(EMULATION_O)
EMULATED = $(B)/lib/liblmpipe-emulated.so
CUDA_ROOT := $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
CUBLASLT := $(if $(CUDA_ROOT),$(firstword $(wildcard $(CUDA_ROOT)/include/cublasLt.h $(CUDA_ROOT)/targets/*/include/cublasLt.h /usr/include/cublasLt.h)))
NCCL := $(firstword $(wildcard $(NCCL_HOME)/include/nccl.h $(CUDA_ROOT)/include/nccl.h /usr/include/nccl.h))
CUDA_OBJECT = $(if $(CUBLASLT),$(B)/lib/liblmpipe-cuda.so)
NCCL_OBJECT = $(if $(CUBLASLT),$(if $(NCCL),$(B)/lib/liblmpipe-nccl.so))
NCCL_LIBRARY := $(firstword $(wildcard $(NCCL_HOME)/lib/libnccl.so $(CUDA_ROOT)/lib64/libnccl.so /usr/lib/*/libnccl.so))
NCCL_STANDIN = $(B)/lib/liblmpipe-nccl-emulated.so
# MPI: a shared object where a Debian package (Open MPI or MPICH) or an mpicc is.
MPICC ?= mpicc
MPI_PACKAGE := $(firstword $(foreach p,mpi-c ompi-c mpich,$(shell $(PKG_CONFIG) --exists $p 2>/dev/null && echo $p)))
MPI_COMPILER := $(if $(MPI_PACKAGE),$(CC),$(shell command -v $(MPICC) 2>/dev/null))
MPI_FLAGS := $(if $(MPI_PACKAGE),$(shell $(PKG_CONFIG) --cflags --libs $(MPI_PACKAGE)))
MPI_OBJECT = $(if $(MPI_COMPILER),$(B)/lib/liblmpipe-mpi.so)
OBJECTS = $(CUDA_OBJECT) $(NCCL_OBJECT) $(MPI_OBJECT)
# What the shared objects and the programs that load them must agree on; an object of other headers is refused.
INTERFACE_H = $(wildcard kernels/*.h) $(addprefix libcommon/,base/dtype.h base/error.h dist/comm.h dist/internal.h dist/launch.h)
CUDA_ARCH = -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_90,code=compute_90

# Lines of the chat are edited by libedit or readline, where one is.
EDITOR := $(firstword $(foreach p,libedit readline,$(shell $(PKG_CONFIG) --exists $p 2>/dev/null && echo $p)))

Q = $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $@)

all: $(BUILT) $(OBJECTS) ## build every program (V=1 shows the commands)

smoke: all $(UNIT) $(EMULATED) $(NCCL_STANDIN) $(SELFTEST) $(PRELOAD) $(RACES) $(B)/tests/bench/gpu ## a minute of tests, for every commit
	$(Q)B=$(B) sh tests/run smoke

check: all $(UNIT) $(EMULATED) $(NCCL_STANDIN) $(SELFTEST) $(PRELOAD) $(RACES) $(B)/tests/bench/gpu $(if $(SAN),,sanitized) ## every test that a machine without a GPU can run
	$(Q)B=$(B) sh tests/run check

# Libraries, kernels and parsers again in a build with sanitizers.
sanitized:
	$(Q)$(MAKE) --no-print-directory B=$(B)/asan SAN=address,undefined OPTIMIZE='-O1 -g' KERNEL_CFLAGS='-O1 -ffp-contract=fast' units

units: $(UNIT) $(EMULATED) $(NCCL_STANDIN) $(SELFTEST)

check-asan: ## every test again, built with the address and undefined-behaviour sanitizers
	$(Q)TEST_SECONDS=$${TEST_SECONDS:-1500} $(MAKE) B=$(B)/asan SAN=address,undefined OPTIMIZE='-O1 -g' KERNEL_CFLAGS='-O1 -ffp-contract=fast' check

check-tsan: ## ranks that are threads, on grids, built with the thread sanitizer
	$(Q)$(MAKE) --no-print-directory B=$(B)/tsan SAN=thread OPTIMIZE='-O1 -g' KERNEL_CFLAGS='-O1 -ffp-contract=fast' tsan

tsan: $(patsubst %,$(B)/bin/%,pretrain sft dpo rmtrain scalefit bpe-train tokenize) $(patsubst %,$(B)/tests/unit/%,dist collectives)
	$(Q)B=$(B) sh tests/tsan/run

check-peers: all ## compare with the real Python packages (tests/reference/README.md)
	$(Q)B=$(B) PYTHON=$(PYTHON) TEXT=$(TEXT) sh tests/peers

check-faults: all ## kill and stop ranks at random, ROUNDS (100) times; results must keep their bits
	$(Q)B=$(B) sh tests/faults/run

check-slurm: all ## train in jobs of a Slurm of one node that it sets up (root; Debian: slurm-wlm, munge)
	$(Q)B=$(B) sh tests/slurm/run

features: ## what this machine's build takes in
	@echo 'CUDA kernels: $(if $(CUBLASLT),yes: $(NVCC),no: $(if $(NVCC),$(NVCC) has no cublasLt.h,no nvcc (set CUDA_HOME)))'
	@echo 'NCCL: $(if $(NCCL),yes: $(NCCL),no (set NCCL_HOME))'
	@echo 'lines of the chat: $(if $(EDITOR),edited by $(EDITOR),as the terminal gives them (install libedit-dev or libreadline-dev))'
	@echo 'YAML: $(if $(YAML),yes,no (install libyaml-dev))'
	@echo 'MPI: $(if $(MPI_COMPILER),yes: $(or $(MPI_PACKAGE),$(MPI_COMPILER)),no (install libopenmpi-dev or libmpich-dev))'

check-gpu: all $(UNIT) ## run the CUDA kernels on this machine's GPU against the CPU ones
	$(Q)B=$(B) sh tests/run gpu

bench: all $(B)/tests/bench/json $(B)/tests/bench/words ## measure as ratios against peers (TEXT=, PYTHON=)
	$(Q)B=$(B) PYTHON=$(PYTHON) TEXT=$(TEXT) sh tests/bench/run
	$(Q)B=$(B) PYTHON=$(PYTHON) SCALING=$(SCALING) sh tests/bench/fits

bench-tasks: all ## evaluation as ratios against lm-evaluation-harness (PYTHON=, ROWS=, MODEL=, N=)
	$(Q)B=$(B) PYTHON=$(PYTHON) sh tests/bench/tasks

bench-fits: all ## scaling-law fits as ratios against SciPy (PYTHON=, SCALING=)
	$(Q)B=$(B) PYTHON=$(PYTHON) SCALING=$(SCALING) sh tests/bench/fits

bench-train: all $(B)/tests/bench/shard $(B)/tests/bench/floor ## training steps as ratios against PyTorch (PYTHON=, MODELS=, TYPES=, WAYS=, FLOOR=1)
	$(Q)B=$(B) PYTHON=$(PYTHON) MODELS='$(MODELS)' TYPES='$(TYPES)' WAYS=$(WAYS) FLOOR=$(FLOOR) sh tests/bench/train

bench-checkpoint: all $(B)/tests/bench/shard ## what checkpoints in the background cost a training (MODELS=, TYPES=, DIR=)
	$(Q)B=$(B) MODELS='$(MODELS)' TYPES='$(TYPES)' DIR=$(DIR) sh tests/bench/checkpoint

bench-types: all ## what 1,000 steps of the 1M model learn in f32 and in bf16 (ROAD=FOLDER of a quickstart, STEPS=, SEED=)
	$(Q)B=$(B) ROAD=$(ROAD) STEPS=$(STEPS) SEED=$(SEED) sh tests/bench/types

bench-generate: all ## answers as ratios against transformers' generate (PYTHON=, MODELS=)
	$(Q)B=$(B) PYTHON=$(PYTHON) MODELS='$(MODELS)' sh tests/bench/generate

bench-score: all ## scores as ratios against transformers' (PYTHON=, MODELS=)
	$(Q)B=$(B) PYTHON=$(PYTHON) MODELS='$(MODELS)' sh tests/bench/score

bench-parallel: all ## what each dimension of a grid costs, two ranks of a thread against one of two (ROUNDS=, RANKS=mpi, ONLY=)
	$(Q)B=$(B) ROUNDS=$(ROUNDS) RANKS=$(RANKS) ONLY=$(ONLY) sh tests/bench/parallel

bench-gpu: all $(B)/tests/bench/gpu ## measure the CUDA kernels beside a copy and cuBLASLt's product on the same GPU
	$(Q)B=$(B) sh tests/bench/run gpu

gpu-kit: all $(UNIT) $(B)/tests/bench/gpu ## collect what check-gpu and bench-gpu run, for a machine without compilers
	$(Q)B=$(B) sh tests/gpu-kit

fuzz: ## feed the parsers with libFuzzer, FUZZ_SECONDS (60) each
	$(Q)sh tests/fuzz/run

quickstart: all ## the whole road, from raw text to a chat model (SIZE=, SEED=, CORPUS=)
	$(Q)$(MAKE) -f pipelines/quickstart.mk BIN=$(abspath $(B)/bin)

install: all ## install programs, shared objects and manual pages under $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/lmpipe $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man7
	for t in $(TOOLS); do install -m 755 $(B)/bin/$$t $(DESTDIR)$(PREFIX)/bin/$(PROGRAM_PREFIX)$$t || exit 1; \
	    install -m 644 man/$$t.1 $(DESTDIR)$(PREFIX)/share/man/man1/$(PROGRAM_PREFIX)$$t.1 || exit 1; done
	install -m 644 man/*.7 $(DESTDIR)$(PREFIX)/share/man/man7/
	$(if $(strip $(OBJECTS)),install -m 755 $(OBJECTS) $(DESTDIR)$(PREFIX)/lib/lmpipe/)

uninstall: ## remove what install put there
	for t in $(TOOLS); do rm -f $(DESTDIR)$(PREFIX)/bin/$(PROGRAM_PREFIX)$$t $(DESTDIR)$(PREFIX)/share/man/man1/$(PROGRAM_PREFIX)$$t.1; done
	rm -f $(DESTDIR)$(PREFIX)/share/man/man7/lmpipe.7 $(DESTDIR)$(PREFIX)/share/man/man7/lmpipe-parallel.7 $(DESTDIR)$(PREFIX)/lib/lmpipe/liblmpipe-*.so

dist: ## make lmpipe-$(VERSION).tar.gz of the committed tree
	git archive --prefix=lmpipe-$(VERSION)/ -o lmpipe-$(VERSION).tar.gz HEAD

clean: ## remove everything that was built
	rm -rf $(B)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

$(B)/liblmpipe.a: $(LIBRARY_O)
	$(call say,AR)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/%.o: %.c
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(EXTRA_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/kernels/cpu/%.o: EXTRA_CFLAGS = $(KERNEL_CFLAGS)
# A vocabulary's exponentials for every token that is drawn.
$(B)/libcommon/model/sample.o: EXTRA_CFLAGS = -O3 -fno-trapping-math
ifneq ($(EDITOR),)
$(B)/cmd/generate/edit.o: EXTRA_CFLAGS = -DLMPIPE_$(if $(filter libedit,$(EDITOR)),LIBEDIT,READLINE) $(shell $(PKG_CONFIG) --cflags $(EDITOR))
$(B)/bin/generate: EXTRA_LIBS = $(shell $(PKG_CONFIG) --libs $(EDITOR))
endif
# Its loop over runs is made into vectors.
$(B)/cmd/scalefit/form3%o: EXTRA_CFLAGS = -O3 -fno-trapping-math -ffp-contract=fast
$(B)/libcommon/io/yaml.o $(B)/tests/unit/harness.o: EXTRA_CFLAGS = $(YAML_CFLAGS)

$(B)/interface.h: $(INTERFACE_H) Makefile
	$(Q)mkdir -p $(@D) && { printf '#define LMPIPE_INTERFACE "lmpipe interface %s"\n' "$$(cat $(INTERFACE_H) | cksum | tr ' ' -)" >$@.new && mv $@.new $@; }

$(B)/libcommon/base/plugin.o $(B)/gpu/cuda/device.o $(B)/emulated/cuda/device.o $(B)/races/cuda/device.o: $(B)/interface.h

$(B)/%.o: %.cc
	$(call say,CXX)
	$(Q)mkdir -p $(@D) && $(CXX) $(ALL_CPPFLAGS) $(ALL_CXXFLAGS) -MMD -MP -c -o $@ $<

# A tool is every C file of its folder over the library.
.SECONDEXPANSION:
$(B)/bin/%: $$(addprefix $(B)/,$$(addsuffix .o,$$(basename $$(wildcard cmd/$$*/*.c)))) $(B)/liblmpipe.a
	$(call say,LINK)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CFLAGS) $(LDFLAGS) -rdynamic -o $@ $(filter %.o,$^) $(B)/liblmpipe.a $(LIBS) $(EXTRA_LIBS)

$(B)/tests/unit/%: $(B)/tests/unit/%.o $(B)/liblmpipe.a
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -rdynamic -o $@ $< $(B)/liblmpipe.a $(LIBS)

$(B)/tests/preload/%.so: tests/preload/%.c
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(ALL_CPPFLAGS) $(filter-out -fsanitize%,$(ALL_CFLAGS)) -shared -fPIC -o $@ $<

$(B)/tests/preload/mpi_bytes.so: tests/preload/mpi_bytes.c
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(MPI_COMPILER) $(ALL_CPPFLAGS) $(filter-out -fsanitize%,$(ALL_CFLAGS)) -shared -fPIC -o $@ $< $(MPI_FLAGS)

$(B)/gpu/%.o: kernels/%.cu
	$(call say,NVCC)
	$(Q)mkdir -p $(@D) && $(NVCC) -std=c++17 -O3 -lineinfo $(CUDA_ARCH) -Ilibcommon -I. -I$(B) -Xcompiler -fPIC,-Wall,-Wextra -MMD -MP -c -o $@ $<

$(B)/lib/liblmpipe-cuda.so: $(CUDA_O)
	$(call say,LINK)
	$(Q)mkdir -p $(@D) && $(NVCC) -shared -o $@ $^ -lcublasLt -Xlinker -rpath=$(CUDA_ROOT)/lib64

$(B)/lib/liblmpipe-nccl.so: libcommon/dist/nccl/nccl.cu $(B)/interface.h kernels/cuda/cuda.h
	$(call say,NVCC)
	$(Q)mkdir -p $(@D) && $(NVCC) -std=c++17 -O2 -Ilibcommon -I. -I$(B) -I$(dir $(NCCL)) -Xcompiler -fPIC,-Wall,-Wextra -shared -o $@ $< \
	    $(NCCL_LIBRARY) -Xlinker -rpath=$(CUDA_ROOT)/lib64

$(B)/lib/liblmpipe-mpi.so: libcommon/dist/mpi/mpi.c $(B)/interface.h
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(MPI_COMPILER) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -O3 -fPIC -shared -o $@ $< $(MPI_FLAGS)

EMULATE = $(CXX) -x c++ $(ALL_CXXFLAGS) -Wno-unknown-pragmas -fno-strict-aliasing -fPIC -Itests/emulation -Ilibcommon -I. -I$(B) -MMD -MP
$(B)/emulated/%.o: kernels/%.cu
	$(call say,CXX)
	$(Q)mkdir -p $(@D) && $(EMULATE) -c -o $@ $<

$(B)/emulated/%.o: tests/emulation/%.cc
	$(call say,CXX)
	$(Q)mkdir -p $(@D) && $(EMULATE) -c -o $@ $<

$(EMULATED): $(EMULATED_O)
	$(call say,LINK)
	$(Q)mkdir -p $(@D) && $(CXX) $(ALL_CXXFLAGS) -shared -Wl,-soname,$(@F) -o $@ $^

$(NCCL_STANDIN): libcommon/dist/nccl/nccl.cu tests/emulation/nccl.cc tests/emulation/nccl.h tests/emulation/cuda_runtime.h $(B)/interface.h $(EMULATED)
	$(call say,CXX)
	$(Q)mkdir -p $(@D) && $(filter-out -MMD -MP,$(EMULATE)) -shared -o $@ $(filter %.cu %.cc,$^) -x none $(EMULATED) -Wl,-rpath,'$$ORIGIN'

$(SELFTEST): $(B)/emulated/selftest.o $(EMULATION_O)
	$(call say,LINK)
	$(Q)mkdir -p $(@D) && $(CXX) $(ALL_CXXFLAGS) -o $@ $^

# The kernels under the thread sanitizer, which must not look into the emulation itself nor lose sight of memset (-fno-builtin).
RACES_O = $(CUDA_SOURCES:kernels/%.cu=$(B)/races/%.o) $(patsubst %,$(B)/races/%.o,races emulation tensor wgmma memory)
EMULATE_RACES = $(EMULATE) -O1 -DRACES
$(B)/races/cuda/%.o: kernels/cuda/%.cu
	$(call say,CXX)
	$(Q)mkdir -p $(@D) && $(EMULATE_RACES) -fsanitize=thread -fno-builtin -c -o $@ $<

$(B)/races/races.o: tests/emulation/races.cc
	$(call say,CXX)
	$(Q)mkdir -p $(@D) && $(EMULATE_RACES) -fsanitize=thread -fno-builtin -c -o $@ $<

$(B)/races/%.o: tests/emulation/%.cc
	$(call say,CXX)
	$(Q)mkdir -p $(@D) && $(EMULATE_RACES) -c -o $@ $<

$(B)/tests/unit/races: $(RACES_O) $(B)/liblmpipe.a
	$(call say,LINK)
	$(Q)mkdir -p $(@D) && $(CXX) $(ALL_CXXFLAGS) -fsanitize=thread -fopenmp -o $@ $^ $(LIBS)

$(B)/tests/bench/%: $(B)/tests/bench/%.o $(B)/liblmpipe.a
	$(call say,LINK)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -rdynamic -o $@ $< $(B)/liblmpipe.a $(LIBS)

-include $(CUDA_O:.o=.d) $(wildcard $(B)/emulated/*.d $(B)/emulated/cuda/*.d $(B)/races/*.d $(B)/races/cuda/*.d)
-include $(LIBRARY_O:.o=.d) $(wildcard $(B)/cmd/*/*.d $(B)/tests/*/*.d)

.PHONY: all smoke check sanitized units tsan check-faults check-slurm features check-asan check-tsan check-peers check-gpu bench bench-tasks bench-train bench-checkpoint bench-types bench-generate bench-score bench-gpu gpu-kit fuzz quickstart install uninstall dist clean help
.PRECIOUS: $(B)/%.o
