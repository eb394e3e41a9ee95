#!/usr/bin/env bash
# The paper's Tables 2 and 3 in miniature: methods, ablations and controls, on nano or another model, three seeds each.
#
#   scripts/table.sh                    # everything, one run per core at a time, continuing what is unfinished
#   METHODS="resd grpo" SEEDS="0" STEPS=16 scripts/table.sh
#
#   METHODS="opd opd_sampled opd_base opd_dialect" STEPS=8 EVERY=4 scripts/table.sh       # taught by RESD's seed 0
#   METHODS="resd_fast switch_fast" STEPS=24 scripts/table.sh; METHODS=resd8_fast STEPS=8 scripts/table.sh
#   METHODS="resd_after grpo_after srpo_after rlsd_after" STEPS=4 EVERY=4 scripts/table.sh # 128 rollouts an update
#
#   TITLE="Half a billion parameters" OUT=runs/house EVERY=10 SEEDS="0 1 2 3 4" STEPS=20 \
#       COMMON="task=house_style task.options.rules=report:{seed} model=qwen2_5_0_5b model.path=runs/real/weights" \
#       METHODS="resd sdpo grpo8" scripts/table.sh                     # every seed has rules of its own
#   … METHODS="told told_strange base_author verbatim" scripts/table.sh # the right rules, those of set N + 100, ...
#
# Runs lie in runs/table/METHOD/seed_N; a finished one is left alone. The tables go to the terminal, the report to
# runs/table/report.html.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
OUT=${OUT:-runs/table}
SEEDS=${SEEDS:-"0 1 2"}
STEPS=${STEPS:-16}
EVERY=${EVERY:-8}
TEACHER=${TEACHER:-$OUT/resd/seed_0/checkpoints/step_000016/model}
FOREIGNER=${FOREIGNER:-$OUT/foreign/seed_0/checkpoints/step_000016/model} # follows a dialect that the task does not have
JOBS=${JOBS:-$(nproc)}
COMMON=${COMMON:-} # settings of every run; {seed} is its seed
TITLE=${TITLE:-Methods on nano}
METHODS=${METHODS:-"resd sdpo sdpo_ss sdpo_trial grpo no_reflection no_playbook no_solution frozen swapped foreign"}

# Eight rules of a dialect that the task does not have.
FOREIGN='["Headers have no colon.","Indent by two.","Pullers are called READER_RB.","Write round brackets.","The last route is BLANK.","A pair has one id.","Reject with HALT.","Other colours fall to the node below."]'

overrides() {
    case $1 in
        resd | sdpo | sdpo_ss | grpo) echo "algorithm=$1" ;;
        sdpo_trial) printf 'algorithm=sdpo\nalgorithm.teacher_prompt.previous_trial=true\n' ;;
        no_reflection) echo "algorithm.teacher_prompt.reflection=false" ;;
        no_playbook) echo "algorithm.teacher_prompt.playbook=false" ;;
        no_solution) echo "algorithm.teacher_prompt.solution=false" ;;
        grpo8) printf 'algorithm=grpo\nalgorithm.group=8\non_empty=warn\n' ;;
        grpo8_dense) printf 'algorithm=grpo\nalgorithm.group=8\ntask.options.reward=dense\n' ;;
        frozen) echo "algorithm.teacher.kind=frozen" ;;
        swapped) echo "algorithm=resd_swapped" ;;
        verbatim) echo "algorithm=resd_verbatim" ;;
        told) printf 'algorithm=resd_fixed\nalgorithm.entries=%s\n' "$(demands "$2")" ;;
        told_strange) printf 'algorithm=resd_fixed\nalgorithm.entries=%s\n' "$(demands "$(($2 + 100))")" ;;
        base_author) printf 'algorithm=resd\nauthor.path=${model.path}\n' ;;
        foreign) printf 'algorithm=resd_fixed\nalgorithm.entries=%s\n' "$FOREIGN" ;;
        opd) printf 'algorithm=opd\nalgorithm.teacher.path=%s\n' "$TEACHER" ;;
        opd_sampled) printf 'algorithm=opd\nalgorithm.signal=sampled\nalgorithm.teacher.path=%s\n' "$TEACHER" ;;
        opd_base) printf 'algorithm=opd\nalgorithm.teacher.path=${model.path}\n' ;;
        opd_dialect) printf 'algorithm=opd\nalgorithm.teacher.path=%s\n' "$FOREIGNER" ;;
        # a rate at which RESD rises and falls again: what holds its level after 8 updates?
        resd_fast | resd8_fast) printf 'algorithm=resd\n%s\n' "$FAST" ;;
        switch_fast) printf 'algorithm=switch\nalgorithm.then.group=4\n%s\n' "$FAST" ;;
        resd_after | grpo_after | srpo_after | rlsd_after)
            printf 'algorithm=%s\nalgorithm.group=4\nmodel.path=%s\n%s\n' "${1%_after}" "$OUT/resd8_fast/seed_$2/checkpoints/step_000008/model" "$FAST" ;;
        *) echo "unknown method $1: see scripts/table.sh" >&2; return 1 ;;
    esac
}

FAST=${FAST:-optimizer.lr=1e-3}

# What the linter of house_style demands in the set of two marks with this number.
demands() {
    "$PYTHON" -c 'import json, sys; from resd import envs
print(json.dumps([rule.demand for rule in envs.load("house_style", rules=f"report:{sys.argv[1]}", marks=2).rules]))' "$1"
}

one() {
    local method=$1 seed=$2 folder="$OUT/$1/seed_$2" settings
    mapfile -t settings < <(overrides "$method" "$seed")
    [ -e "$folder/done" ] && return
    mkdir -p "$folder"
    read -ra common <<<"${COMMON//\{seed\}/$seed}"
    "$PYTHON" -m resd.train "${common[@]}" "${settings[@]}" steps="$STEPS" evaluation.every="$EVERY" seed="$seed" run_dir="$folder" hardware.threads=1 \
        progress=off >>"$folder/console.log" 2>&1 || { echo "$method seed $seed: failed, see $folder/console.log" >&2; return 1; }
    touch "$folder/done"
    echo "$method seed $seed: done"
}

export -f one overrides demands
export PYTHON OUT COMMON STEPS EVERY FOREIGN FAST TEACHER FOREIGNER OMP_NUM_THREADS=1
for seed in $SEEDS; do for method in $METHODS; do echo "$method $seed"; done; done |
    xargs -P "$JOBS" -L 1 bash -c 'one "$0" "$1"'
mapfile -t runs < <(for method in $METHODS; do ls -d "$OUT/$method"/seed_*; done)
mapfile -t across < <(grep -o '[^ ]*=[^ ]*{seed}' <<<"$COMMON" | cut -d= -f1)
"$PYTHON" -m resd.report "${runs[@]}" "${across[@]/#/--across=}" --out "$OUT/report.html" --title "$TITLE" --markdown
