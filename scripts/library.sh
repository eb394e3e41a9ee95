#!/usr/bin/env bash
# What a playbook is worth to a model that was never trained with it: by its size, by where it stands, and against
# controls of equal length and of another dialect.
#
#   scripts/library.sh runs/table/resd/seed_*/playbook.jsonl
#   FOREIGN=runs/table/foreign/seed_0/playbook.jsonl CHECKPOINT=resd/model/nano scripts/library.sh …
#
# Evaluations lie in runs/library/NAME/N for the N-th playbook; a finished one is left alone. The table goes to the
# terminal: percent of the test problems passed, one column a playbook.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
OUT=${OUT:-runs/library}
TASK=${TASK:-manufactoria}
CHECKPOINT=${CHECKPOINT:-resd/model/nano}
FOREIGN=${FOREIGN:-}
SAMPLES=${SAMPLES:-4}

one() { # NAME N SETTING…
    local folder="$OUT/$1/$2"
    if [ ! -e "$folder/done" ]; then
        "$PYTHON" -m resd.evaluate checkpoint="$CHECKPOINT" task="$TASK" samples="$SAMPLES" seed="$2" \
            hardware.threads=1 progress=off out="$folder" "${@:3}" >"/dev/null"
        touch "$folder/done"
    fi
    "$PYTHON" -c 'import json, sys; print(f"{100 * json.loads(open(sys.argv[1]).readlines()[-1])[sys.argv[2]]:9.1f}", end="")' \
        "$folder/metrics.jsonl" "eval/per_task/mean@$SAMPLES"
}

row() { # NAME SETTING…; LIBRARY stands for each playbook in turn
    printf '%-22s' "$1"
    for n in "${!LIBRARIES[@]}"; do
        one "$1" "$n" "${@:2}" library="${LIBRARY:-${LIBRARIES[$n]}}"
    done
    echo
}

LIBRARIES=("$@")
mkdir -p "$OUT"
LIBRARY=null row none
for cap in 2 4 6 8; do row "best_$cap" cap=$cap; done
row all
row filler filler=true
for placement in system before after turn; do row "$placement" placement=$placement; done
[ -z "$FOREIGN" ] || LIBRARY=$FOREIGN row foreign
