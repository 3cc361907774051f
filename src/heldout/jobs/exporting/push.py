"""The kept model of a run on the Hugging Face Hub, with a card and without anything of its data."""

import tempfile
from pathlib import Path
from typing import Any

from heldout.core.damage import refuse_damaged
from heldout.core.errors import UserError
from heldout.core.results.push import CardCheck, Pushed, PushedFile, refuse_telling
from heldout.core.run import Run
from heldout.core.secrets import without_secrets
from heldout.jobs.exporting.hub_files import hub_files
from heldout.report.card import HUB_NAME, hub_base, model_card
from heldout.report.page import write_redacted_report

_NOTHING = "Nothing was uploaded."


def dry_run_push(
    target: str | Path | Run,
    repository: str,
    *,
    private: bool = True,
    with_report: bool = False,
    base: str = "",
) -> Pushed:
    """What ``push`` would upload, from the files alone: no network, no token, nothing written."""
    run = target if isinstance(target, Run) else Run.open(Path(target))
    _refuse_bad_name(repository, "ORG/NAME")
    if base:
        _refuse_bad_name(base, "--base")
    _refuse_unfinished(run)
    refuse_damaged(run)
    is_adapter = run.path("best/adapter_config.json").is_file()
    base = base or (_base_of_adapter(run) if is_adapter else hub_base(run))
    files, left_out = hub_files(run.best, base)
    card = model_card(run, place=repository, title=repository.split("/")[1], base=base)
    files = (PushedFile("README.md", card.encode()), *files)
    if with_report:
        files = (*files, PushedFile("report.html", _redacted_report(run)))
    refuse_telling(files, _own_places(run))
    return Pushed(repository, private, base, files, left_out)


def push(
    target: str | Path | Run,
    repository: str,
    *,
    private: bool = True,
    with_report: bool = False,
    base: str = "",
) -> Pushed:
    """Upload ``best/`` of a run and its card to the Hub, in one commit.

    target: a run folder, or the ``heldout.Run``. repository: ORG/NAME, made where it is not there
    yet. private: of a new one; an old one that is public is refused unless ``private`` is False.
    with_report: also the report without rows, samples, names and paths, as report.html. base:
    ORG/NAME of the base, where the run was trained from a copy that lies here.

    Files go by kind: weights, tokenizer, template, configurations and the card. No row, no text
    that a model wrote, no optimizer state and no path of this machine is among them. The token is
    ``HF_TOKEN``, or what `hf auth login` has kept; it is never an argument.

    Raises UserError, in one line, for a name that the Hub does not take, an adapter of a base that
    is not on the Hub, no token, no connection, and what the Hub refuses.
    """
    found = dry_run_push(target, repository, private=private, with_report=with_report, base=base)
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            "HF_HUB_OFFLINE is set, so nothing can be uploaded: unset it, or see by a dry run what "
            "would be."
        )
    token = get_token()
    if not token:
        raise UserError(
            "The Hub takes uploads with a token that may write: set HF_TOKEN, or use `hf auth "
            f"login`. {_NOTHING}"
        )
    api = HfApi(token=token)
    try:
        checked = _check_card(found.card)
        _refuse_public(api, found)
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(
            repository,
            operations=[
                CommitOperationAdd(
                    file.name,
                    file.content if isinstance(file.content, bytes) else str(file.content),
                )
                for file in found.files
            ],
            commit_message="Upload a model and its card with heldout",
        )
    except UserError:
        raise
    except Exception as error:  # of the connection, the Hub or the file; they share no exception
        said = without_secrets(" ".join(str(error).split()))[:300]
        raise UserError(
            f"The upload to {repository} failed ({type(error).__name__}: {said}). The commit is "
            "one: give the command again."
        ) from error
    return Pushed(
        found.repository,
        private,
        found.base,
        found.files,
        found.left_out,
        str(getattr(commit, "repo_url", "") or f"https://huggingface.co/{repository}"),
        checked,
    )


def _refuse_bad_name(name: str, argument: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        is_good = HUB_NAME.fullmatch(name) is not None
    except HFValidationError:
        is_good = False
    if not is_good:
        raise UserError(
            f"{argument} must be a user or organization, a slash and a name of letters, digits, "
            f"'-', '_' and '.', at most 96 characters, got {name!r}. {_NOTHING}"
        )


def _refuse_unfinished(run: Run) -> None:
    state = run.status.get("state")
    if not run.best.is_dir():
        raise UserError(
            f"{run.folder} has no best/, so there is no model to upload: `heldout fit --resume "
            f"{run.folder}` goes on."
        )
    if state in ("started", "training"):
        raise UserError(f"{run.folder} has not ended ({state}): wait for it, or resume it.")
    if run.path("environment.json").is_file() and (
        run.read_json("environment.json").get("job") == "hyperfit"
    ):
        raise UserError(
            f"{run.folder} is a run of `heldout hyperfit`, overfitted on purpose: push takes runs "
            "of fit, whose card tells how they were judged."
        )


def _base_of_adapter(run: Run) -> str:
    """ORG/NAME in the adapter's own configuration; UserError where its base is not on the Hub."""
    try:
        named = str(run.read_json("best/adapter_config.json").get("base_model_name_or_path") or "")
    except (ValueError, AttributeError, RecursionError):
        raise UserError(f"{run.best}/adapter_config.json is damaged: put it back.") from None
    if not HUB_NAME.fullmatch(named) or Path(named).exists():
        raise UserError(
            f"{run.folder} holds an adapter of {named or 'an unnamed model'}, which is no name on "
            "the Hub, and an adapter is nothing without its base: name it with --base ORG/NAME. "
            f"{_NOTHING}"
        )
    return named


def _redacted_report(run: Run) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_redacted_report(run, Path(folder) / "report.html").read_bytes()


def _own_places(run: Run) -> tuple[str, ...]:
    """Paths that nothing uploaded may tell."""
    environment, data = run.read_json("environment.json"), run.read_json("data.json")
    given = [environment.get("model"), environment.get("from_scratch"), data.get("source")]
    places = [str(run.folder.resolve()), str(Path("~").expanduser())]
    places += [str(each) for each in given if each]
    return tuple(place for place in places if place.startswith("/") and place.count("/") > 1)


def _check_card(card: str) -> CardCheck:
    """By the Hub, where it can be reached: UserError for what it refuses."""
    from huggingface_hub import ModelCard

    try:
        ModelCard(card).validate()
    except ValueError as error:
        raise UserError(f"The Hub refuses the card: {error}. {_NOTHING}") from None
    except Exception:  # of the connection: the upload itself will tell
        return "skipped"
    return "passed"


def _refuse_public(api: Any, found: Pushed) -> None:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        known = api.repo_info(found.repository)
    except RepositoryNotFoundError:
        return
    if found.is_private and not known.private:
        raise UserError(
            f"{found.repository} is there and public, and --private was meant: give --public, or "
            f"another name. {_NOTHING}"
        )
