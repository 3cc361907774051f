#!/bin/sh
# finetune-doctor 0.2.2, losslint 0.4.1, trainspotter 0.2.6, runmedic 0.1.1: tools that read the log of
# a fine-tuning and say what is wrong with it.
#
# Guessed: a held-out loss of 2.0, 1.2, 3.2, one evaluation an epoch, beside a training loss that
# falls to .42, is overfitting to all of them, as it is with six evaluations of the same rise. Seen:
# with three none names it. losslint prints "clean" and exits 0, runmedic "No problems found. The
# curves look healthy", trainspotter complains of the learning rate, and finetune-doctor has no
# finding above INFO, though its header calls the last checkpoint 167 % worse, outside of noise.
# Three epochs with an evaluation after each is the commonest fine-tuning there is.
#
# And trainspotter takes a smooth rise for jitter: of 2.0, 1.2, 1.8, 2.4, 2.9, 3.2 it says that the
# evaluations are too noisy to rank checkpoints, because they differ by .6 from one to the next,
# beside the overfitting that it names too.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
. "$place/venv/bin/activate"
pip install --quiet finetune-doctor==0.2.2 losslint==0.4.1 trainspotter==0.2.6 runmedic==0.1.1
cd "$place"
python - <<'PYTHON'
import json
from pathlib import Path

for losses in ([2.0, 1.2, 3.2], [2.0, 1.2, 1.8, 2.4, 2.9, 3.2]):
    steps, log = 600, []
    every = steps // len(losses)
    for step in range(10, steps + 1, 10):
        at = {"step": step, "epoch": step / every}
        loss = 2.5 * 0.995**step + 0.3
        log.append({**at, "loss": loss, "learning_rate": 1e-4, "grad_norm": 1.0})
        if step % every == 0:
            log.append({**at, "eval_loss": losses[step // every - 1]})
    state = {"global_step": steps, "max_steps": steps, "epoch": float(len(losses)),
             "num_train_epochs": len(losses), "log_history": log, "logging_steps": 10}
    folder = Path(f"of_{len(losses)}")
    folder.mkdir()
    (folder / "trainer_state.json").write_text(json.dumps(state))
PYTHON
say() { # TOOL LOG: what it prints, whatever it exits with
    case $1 in
    finetune-doctor) set -- "$2" finetune-doctor ;;
    losslint) set -- "$2" losslint check ;;
    trainspotter) set -- "$2" trainspotter analyze ;;
    runmedic) set -- "$2" runmedic diagnose ;;
    esac
    log=$1
    shift
    "$@" "$log/trainer_state.json" 2>&1 || true
}
for tool in finetune-doctor losslint trainspotter runmedic; do
    say $tool of_3 >"$tool.3"
    say $tool of_6 >"$tool.6"
    echo "== $tool"
    grep -iE "overfit|clean|healthy|too noisy|INFO|worse" "$tool.3" || true
    if grep -qi overfit "$tool.3"; then
        echo "$tool names it now" && exit 1
    fi
    grep -qi overfit "$tool.6" || { echo "$tool does not name six evaluations' rise" && exit 1; }
done
grep -q "clean" losslint.3
grep -q "No problems found" runmedic.3
grep -q "167% worse" finetune-doctor.3
grep -q "too noisy to rank" trainspotter.6
echo "as described"
