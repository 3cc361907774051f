"""A check of made-up rows with every kind of finding in it, some of them hostile."""

import json
import random

from heldout.core.measurement import Interval, Measurement, NotMeasured
from heldout.core.results.check import CheckResult
from heldout.core.results.label_noise import DoubtfulAnswer, LabelNoise
from heldout.core.results.learning_curve import CurvePoint, Forecast, LearningCurve
from heldout.jobs.checking.check import check

HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>"


def made_up_check(folder) -> CheckResult:
    import dataclasses

    rng = random.Random(0)
    words = [f"w{number}" for number in range(3000)]

    def text(num):
        return " ".join(rng.choices(words, k=num))

    train = [text(rng.randint(20, 200)) for _ in range(300)]
    frame = text(60)
    train += [f"{frame} {text(80)}" for _ in range(15)]
    train += [train[3], f"{HOSTILE} {text(60)}", "mail john.doe@acme.org or call (212) 555-0147"]
    changed = train[40].split()
    changed[5] = HOSTILE.replace(" ", "")
    heldout = [train[5], train[-2], " ".join(changed), f"{text(30)} {train[9]} {text(200)}"]
    heldout += [text(90) for _ in range(40)]
    lines = [json.dumps({"text": t, "who": f"g{n}"}) for n, t in enumerate(train)]
    lines += ['{"text": ""}', HOSTILE, '{"text": "caf\\u00c3\\u00a9"}', '{"text": "cut o']
    paths = [folder / name for name in ("train.jsonl", "heldout.jsonl", "exam.jsonl")]
    paths[0].write_text("\n".join(lines))
    rows = [{"text": t, "who": f"g{n}" if n < 6 else f"h{n}"} for n, t in enumerate(heldout)]
    paths[1].write_text("\n".join(map(json.dumps, rows)))
    paths[2].write_text(json.dumps({"text": train[70]}))
    found = check(paths[0], heldout=[paths[1]], against=[paths[2]], settings=["data.group=who"])
    measured = [
        Measurement("bits_per_byte", 0.91, "bits per byte", 300, "group", Interval(0.88, 0.95)),
        Measurement("information_bits", 1.2e6, "bits", 300, "group", Interval(1.1e6, 1.3e6)),
        NotMeasured("domain_distance", "no reference text was given: --reference"),
    ]
    return dataclasses.replace(
        found,
        measurements=measured,
        warnings=[HOSTILE],
        label_noise=made_up_label_noise(rng),
        learning_curve=made_up_curve(),
    )


def made_up_label_noise(rng) -> LabelNoise:
    excess = [rng.gauss(-0.5, 0.3) for _ in range(200)]
    return LabelNoise(
        220,
        200,
        5,
        3.0,
        1e-3,
        [DoubtfulAnswer(7, "train.jsonl line 8", f"Who? {HOSTILE}", HOSTILE, 0.31, -0.02)],
        excess,
        [rng.gauss(0.0, 0.3) for _ in range(200)],
        [
            Measurement(
                "prompt_information", 0.5, "bits per token", 200, "group", Interval(0.46, 0.54)
            )
        ],
    )


def made_up_curve() -> LearningCurve:
    def at(tokens):
        return 2 + 60 / tokens**0.5

    points = tuple(
        CurvePoint(part, seed, int(800 * part), int(16_000 * part), at(16_000 * part), 2.0, 3.0, 6)
        for part in (0.125, 0.25, 0.5, 1.0)
        for seed in range(3)
    )
    forecasts = tuple(
        Forecast(
            factor,
            factor * 16_000,
            at(factor * 16_000),
            Interval(at(factor * 16_000) - 0.03 * factor, at(factor * 16_000) + 0.03),
            at(16_000) - at(factor * 16_000),
            Interval(0.05, 0.2),
        )
        for factor in (2.0, 4.0)
    )
    sentence = "Yes: twice the data would lower the held-out loss by 0.139 nats per token."
    notes = ("They are forecasts.",)
    return LearningCurve(
        points, 100, 50, 4.0, 2.0, 60.0, 0.5, forecasts, 1.2, 0.01, "yes", sentence, notes
    )
