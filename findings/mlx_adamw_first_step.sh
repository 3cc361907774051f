#!/bin/sh
# mlx 0.32.4, mlx-lm 0.32.2: AdamW's first steps are three times the learning rate long.
#
# Guessed: AdamW without further settings is the one of the paper and of torch, whose first step
# moves every weight by the learning rate. Seen: bias_correction is off by default, so the first
# step is 0.1 / sqrt(0.001) = 3.16 learning rates long, the tenth still 6.5, and it comes down to
# one only after some thousands of steps (with gradients that stay as they are); a learning rate
# found with another trainer is several times too high on a short fine-tuning. mlx-lm passes on
# what stands under optimizer_config and sets nothing itself.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
. "$place/venv/bin/activate"
pip install --quiet "mlx[cpu]==0.32.4" mlx-lm==0.32.2
python - <<'PYTHON'
import mlx.core as mx
import mlx.optimizers as optim
from mlx_lm.lora import CONFIG_DEFAULTS


def lengths(**settings):
    """Steps 1, 10 and 3,000 in learning rates, with a gradient of 1 throughout."""
    optimizer = optim.AdamW(learning_rate=1e-3, weight_decay=0.0, **settings)
    weights, found = {"w": mx.zeros(1)}, {}
    for step in range(1, 3001):
        before = weights["w"]
        weights = optimizer.apply_gradients({"w": mx.ones(1)}, weights)
        mx.eval(weights, optimizer.state)
        if step in (1, 10, 3000):
            found[step] = round(float((before - weights["w"])[0]) / 1e-3, 2)
    return found


usual, corrected = lengths(), lengths(bias_correction=True)
print("by default:", usual, "with bias_correction:", corrected)
assert CONFIG_DEFAULTS["optimizer_config"]["adamw"] == {}
assert 3.1 < usual[1] < 3.2 and 6 < usual[10] < 7 and 1.0 < usual[3000] < 1.1
assert all(abs(length - 1) < 0.05 for length in corrected.values())
print("mlx: as described")
PYTHON
