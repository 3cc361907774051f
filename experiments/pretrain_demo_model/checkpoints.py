"""Where a training that was interrupted goes on, and what is packaged before its end."""


def last_checkpoint(runs):
    """The newest complete checkpoint folder, or None; the trainer's state is written last."""
    complete = [path.parent for path in runs.glob("checkpoint-*/trainer_state.json")]
    newest = max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)
    return newest and str(newest)
