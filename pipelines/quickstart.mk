# The whole road, from raw text to a chat model: `make quickstart` runs this file. Each stage is a command that could have been
# typed; a stage whose inputs have not changed is not run again, so an interrupted road goes on where it stopped.
#
#   SIZE=small|medium|large   budgets: about 15 minutes, 2 hours, a night on 2 cores
#   SEED=N                    of everything random
#   RANKINGS=FILE             answers ranked by people (ranking documents), read by the reward models too
#   CORPUS=DIR                JSON Lines of your own: DIR/general*.jsonl[.gz] (or DIR/general/*), math, code, multilingual

SIZE ?= small
SEED ?= 1
BIN ?= $(abspath build/bin)
HERE := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
ROOT ?= $(abspath $(HERE)/..)/quickstart
RAW ?= $(ROOT)/corpus
W ?= $(ROOT)/$(SIZE)-$(SEED)
export PATH := $(BIN):$(PATH)
SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
.DELETE_ON_ERROR:
.SECONDARY:

CLASSES = general math code multilingual
MIX = general=0.50:$S/general math=0.25:$S/math code=0.17:$S/code multilingual=0.08:$S/multilingual
V = $W/vocab
S = $W/shards

# Budgets in FLOPs, and the sizes (parameters without the input table) that each is spent on.
small_VOCAB = 2048
small_TOKENS = 12000000
small_SWEEP = 1.6e12:3.4e4,7.8e4,1.5e5,2.8e5 2.6e12:3.4e4,7.8e4,1.5e5,2.8e5 4e12:3.4e4,7.8e4,1.5e5,2.8e5
small_MAIN = 3e13
small_TASKS = 250 300 4000 1500
medium_VOCAB = 8192
medium_TOKENS = 20000000
medium_SWEEP = 4e12:3e5,6e5,1e6,2e6,4e6 1e13:5e5,1e6,2e6,4e6,8e6 3e13:1e6,2e6,4e6,8e6,1.6e7
medium_MAIN = 6e14
medium_TASKS = 1000 500 4000 2000
large_VOCAB = 16384
large_TOKENS = 28000000
large_SWEEP = 3e13:1e6,2e6,4e6,8e6,1.6e7 1e14:2e6,4e6,8e6,1.6e7,3e7 3e14:3e6,6e6,1.2e7,2.4e7,5e7
large_MAIN = 4e15
large_TASKS = 2000 1000 8000 3000
VOCAB = $($(SIZE)_VOCAB)
TOKENS = $($(SIZE)_TOKENS)
SWEEP = $($(SIZE)_SWEEP)
MAIN = $($(SIZE)_MAIN)
TASKS = $($(SIZE)_TASKS)
HEAD_DIM = 16
SEQ = 256
SAMPLES = 8

say = @printf '%s  %-12s %s\n' "$$(date +%H:%M:%S)" '$(1)' '$(2)'

all: $W/report.txt
	@cat $W/report.txt

# 1. Corpus: documents of four classes, set-aside ones taken out first.
ifdef CORPUS
$W/raw/%.jsonl:
	$(call say,corpus,$* from $(CORPUS))
	@mkdir -p $(@D)
	@for f in $(CORPUS)/$* $(CORPUS)/$*.jsonl* $(CORPUS)/$*/*; do [ ! -f "$$f" ] || case $$f in *.gz) gzip -dc "$$f";; *.zst) zstd -dc "$$f";; *) cat "$$f";; esac; done > $@
	@[ -s $@ ] || { echo "no documents of the class $* in $(CORPUS)" >&2; exit 1; }
else
$(RAW)/fetched: $(HERE)corpus/packages $(HERE)corpus/fetch
	$(call say,corpus,fetching packages)
	@mkdir -p $(RAW)
	@sh $(HERE)corpus/fetch $(RAW)
	@touch $@
$W/raw/%.jsonl: $(RAW)/fetched $(HERE)corpus/extract
	$(call say,corpus,extracting $*)
	@mkdir -p $(@D)
	@perl $(HERE)corpus/extract $* $(RAW) > $@ 2> $@.log
endif

# 2. Curation: rules and duplicates in one pipe a class. The published thresholds are for the prose of web pages; here they are
# loosened until clean text survives. On 21,000 documents that are clean by construction, on which the
# thresholds were chosen too, these lose 2.3 % of English prose, 1.6 % of mathematics, 2.4 % of code and 0.8 % of other languages; tables, indexes and registers are most of it. Words of prose are asked
# of general text alone.
set = $(foreach x,$(2),--set $(1).$(x))
ngrams = $(foreach n,5 6 7 8 9 10,dup-$(n)-gram=$(1))
general_RULES = --rules gopher-quality,gopher-repetition \
    $(call set,gopher-quality,min-doc-words=30 max-non-alpha-words-ratio=0.4 max-ellipsis-lines-ratio=0.5) \
    $(call set,gopher-repetition,dup-line-frac=0.5 dup-line-char-frac=0.4 dup-para-frac=0.4 dup-para-char-frac=0.3 top-2-gram=0.3 top-3-gram=0.25 top-4-gram=0.25 $(call ngrams,0.3))
math_RULES = --rules gopher-repetition \
    $(call set,gopher-repetition,dup-line-frac=0.5 dup-line-char-frac=0.4 dup-para-frac=0.4 top-2-gram=0.4 top-3-gram=0.4 top-4-gram=0.4 $(call ngrams,0.4))
code_RULES = --rules gopher-repetition \
    $(call set,gopher-repetition,dup-line-frac=0.6 dup-line-char-frac=0.5 dup-para-frac=0.5 top-2-gram=0.5 top-3-gram=0.5 top-4-gram=0.5 $(call ngrams,0.5))
multilingual_RULES = $(math_RULES)
$W/clean/%.jsonl: $W/raw/%.jsonl
	$(call say,curation,$*)
	@mkdir -p $(@D)
	@qfilter $($*_RULES) --block-domains $(HERE)lists/domains.txt --bad-words $(HERE)lists/bad-words.txt --pii=mask --removed $W/clean/$*.bad.jsonl --stats $W/clean/$*.filter.json $< | \
	    dedup --exact --fuzzy --threshold 0.8 --removed $W/clean/$*.twice.jsonl --stats $W/clean/$*.dedup.json -o $@
$W/curation.txt: $(CLASSES:%=$W/clean/%.jsonl) $(HERE)corpus/table
	@perl $(HERE)corpus/table $(CLASSES:%=$W/clean/%) > $@
	@cat $@
$W/split/%.train.jsonl: $W/clean/%.jsonl
	@mkdir -p $(@D)
	@perl $(HERE)corpus/split $@ $W/split/$*.test.jsonl < $<

# 3. Vocabulary on the mix, shards, the mix itself with held-out documents.
$V/tokenizer.json: $(CLASSES:%=$W/split/%.train.jsonl)
	$(call say,vocabulary,$(VOCAB) tokens)
	@bpe-train --vocab-size $(VOCAB) --pattern llama3 --chat-template --holdout 0.02 -o $V $^
$S/%.idx: $V/tokenizer.json $W/split/%.train.jsonl
	@mkdir -p $(@D)
	@tokenize --tokenizer $V -o $S/$* $W/split/$*.train.jsonl
# A small corpus of one's own is repeated up to four times, and gives what it has (.bin holds two bytes a token).
$W/mix/manifest.json: $(CLASSES:%=$S/%.idx)
	@tokens=$(TOKENS); for part in $(MIX); do \
	    file=$${part#*:}.bin share=$${part#*=}; \
	    tokens=$$(awk -v t=$$tokens -v b=$$(stat -c %s $$file) -v s=$${share%%:*} 'BEGIN {h = int((b / 2 - 20000) * 3.9 / s); printf "%d", h < t ? h : t}'); done; \
	printf '%s  %-12s %s\n' "$$(date +%H:%M:%S)" mix "$$tokens tokens"; \
	mixshard $(MIX) --tokens $$tokens --seq-len $(SEQ) --holdout 20000 --max-epochs 4 --seed $(SEED) -o $W/mix
VAL = --val general=0.50:$W/mix/heldout-general --val math=0.25:$W/mix/heldout-math --val code=0.17:$W/mix/heldout-code --val multilingual=0.08:$W/mix/heldout-multilingual

# 4. Scaling laws: every run decays to its own end. The learning rate falls with the width. Several runs are trained at once, one thread each.
GRID = --tokenizer $V --head-dim $(HEAD_DIM) --aspect 24 --seq-len $(SEQ) --rule width --tolerance 0.3 --ratio 1.7 \
    --train '--data $W/mix/train --shuffle $(VAL) --eval-tokens 20000 --tokenizer $V --seed $(SEED)'
$W/sweep/done: $W/mix/manifest.json
	$(call say,sweep,$(words $(SWEEP)) budgets)
	@mkdir -p $(@D)
	@scalefit grid $(GRID) $(SWEEP:%=--budget %) -o $(@D)/grid.mk
	@$(MAKE) -s -j$(shell nproc) -f $(@D)/grid.mk OUT=$(@D) $(@D)/extended
	@touch $@
# A fit that fails does not stop the road: pre-training then takes the published law and says so.
LAW = scalefit isoflop --tolerance 0.3 --budget $(MAIN) $W/sweep/*/log.jsonl
$W/law.json: $W/sweep/done
	@$(LAW) --json --plot $W/isoflop.svg > $@ 2> $W/law.err || echo '{}' > $@
	@{ cat $W/law.err; $(LAW) -q 2> /dev/null || true; } | tee $W/law.txt

# 5. Pre-training at the size that the law predicts (where the fit failed, the published law's: Hoffmann et al. 2022, 20 tokens a
# parameter), then two stages of longer contexts with RoPE's base raised.
$W/pretrain/done: $W/law.json
	@size=$$(sed -n '/"predictions"/,$$ s/.*"params": \([0-9.e+]*\),.*/\1/p' $< | head -n 1); \
	if [ -n "$$size" ]; then echo "law: fitted to this sweep"; else size=$$(awk 'BEGIN {print sqrt($(MAIN) / 120)}'); echo "law: published (20 tokens a parameter), the fit failed"; fi > $W/law-used.txt; \
	printf '%s  %-12s %.0f parameters, %s FLOPs\n' "$$(date +%H:%M:%S)" pretrain "$$size" $(MAIN); \
	scalefit grid $(GRID) --budget $(MAIN):$$size -o $W/main.mk
	@$(MAKE) -s -f $W/main.mk OUT=$W/main THREADS=0 runs
	@rm -rf $(@D) && mv $W/main/* $(@D)
LONG = --data $W/mix/train --shuffle --tokenizer $V --schedule linear --warmup 5 --min-lr 0 --seed $(SEED) -q $(VAL) --eval-tokens 20000
$W/context-512/done: $W/pretrain/done
	$(call say,context,$(SEQ) to 512)
	@pretrain --init $W/pretrain $(LONG) --seq-len 512 --batch-tokens 4096 --micro-batch 8 --steps 40 --lr 4e-4 --rope-theta 40000 -o $(@D)
$W/base/done: $W/context-512/done
	$(call say,context,512 to 1024)
	@pretrain --init $W/context-512 $(LONG) --seq-len 1024 --batch-tokens 4096 --micro-batch 4 --steps 40 --lr 3e-4 --rope-theta 160000 -o $(@D)
NEEDLE = --needle $(addprefix --needle-length ,256 512 1024) --needle-samples 4 --seed $(SEED)
$W/gates.txt: $W/base/done $W/pretrain/done
	@{ echo "gate 1, short context: bits per byte on held-out text at $(SEQ) tokens, before and after"; \
	   for m in pretrain base; do lmeval --model $W/$$m --max-length $(SEQ) --perplexity $W/mix/heldout-general | sed "s/^/$$m  /" | grep bits; done; \
	   echo "gate 2, needle in a haystack (chance 0.1)"; lmeval --model $W/base $(NEEDLE); } > $@
	@cat $@

# 6. Post-training. The checker grades candidates for the reward model, and people's rankings (RANKINGS, ranking documents) join its
# pairs; in rejsample the reward model alone selects.
T = $W/tasks
$T/test.jsonl: $(CLASSES:%=$W/split/%.train.jsonl) $(HERE)tasks/make
	$(call say,tasks,$(TASKS))
	@mkdir -p $T
	@cd $T && perl $(HERE)tasks/make $(SEED) $W/split $(TASKS)
TRAIN = --batch-size 32 --max-length 512 --rows 4096 --schedule linear --min-lr 0 --warmup 5 --save-every 0 --seed $(SEED) -q
$W/sft/done: $W/base/done $T/test.jsonl
	$(call say,sft,until the development score stops rising)
	@sft --model $W/base --epochs 30 --lr 6e-4 $(TRAIN) --val $T/dev.jsonl --eval-every 16 --patience 5 -o $(@D) $T/sft.jsonl
round-2_FROM = round-1
round-1_FROM = sft
SAMPLE = --samples $(SAMPLES) --temperature 1 --max-tokens 12 --max-prompt 400 --batch 64 --seed $(SEED)
$W/%/pairs.jsonl: $W/sft/done
	@$(MAKE) -s -f $(firstword $(MAKEFILE_LIST)) $W/$($*_FROM)/done
	$(call say,$*,candidates and their grades)
	@mkdir -p $(@D)
	@head -n $$(( $$(wc -l < $T/prompts-$(*:round-%=%).jsonl) / 2 )) $T/prompts-$(*:round-%=%).jsonl | \
	    generate --model $W/$($*_FROM) $(SAMPLE) | perl $(HERE)tasks/check > $@
RANKINGS ?=
$W/%/reward/done: $W/%/pairs.jsonl $(RANKINGS)
	$(call say,$*,reward model)
	@rmtrain --model $W/base --epochs 3 --lr 1e-3 $(TRAIN) -o $(@D) $< $(RANKINGS)
SHUFFLE ?=
$W/%/scored.jsonl: $W/%/reward/done
	$(call say,$*,answers drawn and scored)
	@tail -n +$$(( $$(wc -l < $T/prompts-$(*:round-%=%).jsonl) / 2 + 1 )) $T/prompts-$(*:round-%=%).jsonl | \
	    generate --model $W/$($*_FROM) $(SAMPLE) | rmtrain --score --model $(@D)/reward --max-length 512 $(if $(SHUFFLE),| perl $(HERE)tasks/shuffle-scores $(SEED)) > $@
$W/%/best.jsonl: $W/%/scored.jsonl
	@rejsample --best -o $@ $<
$W/%/preferences.jsonl: $W/%/scored.jsonl
	@rejsample --pairs --min-margin 0.5 -o $@ $<
$W/%/sft/done: $W/%/best.jsonl
	$(call say,$*,sft on the best)
	@sft --model $W/$($*_FROM) --epochs 3 --lr 6e-4 $(TRAIN) -o $(@D) $T/sft.jsonl $<
$T/dev-tasks.jsonl: $T/test.jsonl
	@perl $(HERE)tasks/chats-to-tasks $T/dev.jsonl > $@
# A round ends with the best of where it began and what it made, by the development tasks: dpo may go too far.
$W/round-1/done $W/round-2/done: $W/%/done: $W/%/sft/done $W/%/preferences.jsonl $T/dev-tasks.jsonl
	$(call say,$*,dpo)
	@if [ -s $W/$*/preferences.jsonl ]; then \
	    dpo --model $W/$*/sft --epochs 1 --lr 5e-5 $(TRAIN) -o $W/$*/dpo $W/$*/preferences.jsonl; \
	else echo "$*: the answers give no preferences; dpo is left out"; fi
	@for m in $($*_FROM) $*/sft $*/dpo; do [ ! -e $W/$$m/final ] || echo "$$m $$(sh $(HERE)tasks/score $W/$$m $T/dev-tasks.jsonl)"; done > $W/$*/scores.txt
	@best=$$(sort -g -k 2 $W/$*/scores.txt | tail -n 1); echo "$*: right of the development tasks: $$(awk '{printf "%s%s %.3f", (NR > 1 ? ", " : ""), $$1, $$2}' $W/$*/scores.txt)"; \
	rm -rf $W/$*/final && cp -r $W/$${best%% *}/final $W/$*/final && touch $@

# 7. Evaluation: one table from base to the last round.
$W/eval-%.jsonl: $W/%/done $T/test.jsonl
	$(call say,evaluation,$*)
	@lmeval --model $W/$* --chat --match $T/test.jsonl --max-tokens 12 --max-length 480 --answers $@ > $W/eval-$*.txt
	@for c in $(CLASSES); do lmeval --model $W/$* --max-length $(SEQ) --perplexity $W/mix/heldout-$$c | grep bits_per_byte; done >> $W/eval-$*.txt
	@lmeval --model $W/$* $(NEEDLE) | awk '$$1 !~ /depth/' >> $W/eval-$*.txt
MODELS = base sft round-1 round-2
$W/report.txt: $W/curation.txt $W/gates.txt $(MODELS:%=$W/eval-%.jsonl) $(HERE)report
	@bash $(HERE)report $W $(MAIN) $(MODELS) > $@

.PHONY: all
