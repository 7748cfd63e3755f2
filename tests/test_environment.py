"""The set-up from nothing: its sentences, and what an environment must hold to be trusted."""

import hashlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "environment.py"
LOCK = ROOT / "requirements.lock"
PLACES = ("local", "standalone", "yarn", "kubernetes")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of a project that needs one package, with an empty PATH beside it in `bin`."""
    root = tmp_path / "checkout"
    (root / ".ci").mkdir(parents=True)
    shutil.copy(SCRIPT, root / ".ci")
    (root / "pyproject.toml").touch()
    (root / "requirements.lock").write_text(f"surely-not-there==1.0 --hash=sha256:{'0' * 64}\n")
    (root / "bin").mkdir()
    return root


def set_up(root: Path, *python: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = python or (sys.executable, str(root / ".ci" / "environment.py"))
    environ = {"PATH": str(root / "bin"), "HOME": str(root), **environ}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)


def write_program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def give_java(root: Path) -> None:
    java = shutil.which("java")
    assert java, "the tests need Java too"
    write_program(root / "bin" / "java", f'exec {java} "$@"')


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a set-up that stopped."""
    assert done.returncode == 2, done.stdout + done.stderr
    *_, sentence = done.stderr.splitlines()
    return sentence


def test_an_unsupported_python_is_told_which_ones_will_do(checkout: Path) -> None:
    old = write_program(checkout / "old" / "python3.9", f"echo 3 9 {checkout}/old/python3.9")
    as_old = (
        f"import runpy, sys; sys.version_info, sys.executable, sys.base_prefix = (3, 9), {str(old)!r}, sys.prefix;"
        f"runpy.run_path({str(checkout / '.ci' / 'environment.py')!r}, run_name='__main__')"
    )

    done = set_up(checkout, sys.executable, "-c", as_old)

    assert refusal(done) == (
        f"Almanac needs Python 3.11 or 3.12, and {old} is 3.9: install one of them, and name it where it is not on "
        "PATH, for example `make demo PYTHON=/opt/python3.12/bin/python3.12`."
    )
    assert not (checkout / ".venv").exists()


def test_a_missing_java_is_named_with_the_package_that_brings_it(checkout: Path) -> None:
    assert refusal(set_up(checkout)) == (
        "Spark needs Java 17 or later, and no java on PATH runs: install one (Debian: apt-get install "
        "openjdk-17-jre-headless), or set JAVA_HOME to one."
    )
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(("printed", "release"), [("11.0.2", "11"), ("1.8.0_392", "8")])
def test_an_old_java_is_told_its_version(checkout: Path, printed: str, release: str) -> None:
    java = write_program(checkout / "bin" / "java", f"echo 'openjdk version \"{printed}\"' >&2")

    assert f"and {java} is Java {release}: install one" in refusal(set_up(checkout))


def test_a_java_home_without_java_is_named(checkout: Path) -> None:
    give_java(checkout)

    assert "JAVA_HOME is /nowhere, where bin/java does not run" in refusal(set_up(checkout, JAVA_HOME="/nowhere"))


def test_a_java_without_the_module_that_spark_loads_is_refused(checkout: Path) -> None:
    write_program(checkout / "bin" / "java", "echo 'openjdk version \"17.0.1\"' >&2; [ $# = 1 ]")

    assert "cut-down Java, without the module jdk.incubator.vector" in refusal(set_up(checkout))


def test_a_missing_lock_is_told_how_to_get_it(checkout: Path) -> None:
    (checkout / "requirements.lock").unlink()

    assert refusal(set_up(checkout)) == (
        f"{checkout}/requirements.lock is missing: take a whole checkout of the project, or write it with `make lock`."
    )


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_an_index_out_of_reach_is_one_sentence_after_the_installers_words(checkout: Path, tool: str) -> None:
    give_java(checkout)
    if tool == "pip" and not importlib.util.find_spec("ensurepip"):
        pytest.skip("this Python comes without pip")
    if tool == "uv":
        uv = shutil.which("uv") or pytest.skip("uv is not on PATH")
        write_program(checkout / "bin" / "uv", f'exec {uv} "$@"')
    with socket.socket() as closed:  # bound, never listening: whoever connects is turned away
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        quick = {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "UV_NO_CONFIG": "1", "UV_HTTP_RETRIES": "0"}

        done = set_up(checkout, PIP_INDEX_URL=index, UV_DEFAULT_INDEX=index, **quick)

    assert refusal(done).startswith("The package index did not give the packages: check the network, the proxy")
    assert "surely-not-there" in done.stderr
    assert not (checkout / ".venv" / ".ready").exists()


def finish(root: Path) -> None:
    """Leave what a set-up that went through leaves, without its packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
    write_program(root / ".venv" / "bin" / "pip", "exit 1")
    digest = hashlib.sha256((root / "requirements.lock").read_bytes()).hexdigest()
    (root / ".venv" / ".ready").write_text(digest)


def test_a_finished_set_up_is_left_alone(checkout: Path) -> None:
    finish(checkout)

    done = set_up(checkout, PYTHON=sys.executable)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_new_lock_makes_the_environment_anew(checkout: Path) -> None:
    finish(checkout)
    (checkout / "requirements.lock").write_text("another==2.0\n")

    assert "Spark needs Java" in refusal(set_up(checkout)), "the checks of a set-up are made again"


def test_an_interrupted_set_up_is_made_anew(checkout: Path) -> None:
    finish(checkout)
    (checkout / ".venv" / ".ready").unlink()

    assert "Spark needs Java" in refusal(set_up(checkout)), "the checks of a set-up are made again"


@pytest.mark.skipif(sys.platform != "linux", reason="the dynamic linker of Linux")
def test_lightgbm_runs_on_the_libgomp_lent_by_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("environment", SCRIPT)
    assert spec
    assert spec.loader
    environment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(environment)
    libraries = (
        next(Path(path) for path in sys.path if (Path(path) / "scikit_learn.libs").is_dir()) / "scikit_learn.libs"
    )
    site_packages = tmp_path / "lib" / "python3" / "site-packages"
    shutil.copytree(libraries, site_packages / "scikit_learn.libs")
    answers = iter([False, True])
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "loads_libgomp", lambda: next(answers))

    environment.provide_libgomp()

    hook = site_packages / "almanac_libgomp.pth"
    program = "\n".join(
        [
            "import re, sys",
            "from pathlib import Path",
            f"sys.prefix = {str(tmp_path)!r}",
            f"exec(Path({str(hook)!r}).read_text())",
            "import lightgbm",
            "print(*set(re.findall('/.*libgomp[.]so.*', Path('/proc/self/maps').read_text())))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "lib" / "libgomp.so.1")]


def test_no_file_of_jobs_or_dags_hides_a_module_of_another() -> None:
    ours = {path.stem for folder in ("jobs", "dags") for path in (ROOT / folder).iterdir()} - {
        "__init__",
        "__pycache__",
    }

    assert ours & (sys.stdlib_module_names | packages_distributions().keys()) == set()


def test_pyspark_is_whole() -> None:
    import pyspark

    assert pyspark.__version__ == version("pyspark")
    with pytest.raises(PackageNotFoundError):
        version("pyspark-client")


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", LOCK.read_text(), flags=re.MULTILINE))


def test_the_lock_pins_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for apart in ("bench", "bench-scoring"):  # in environments of their own
        del extras[apart]
    lines = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    wanted = [Requirement(line) for line in lines if not line.startswith("almanac[")]
    pins = locked()

    assert [
        str(each) for each in wanted if not each.specifier.contains(pins.get(canonicalize_name(each.name), ""))
    ] == []


def test_the_lock_names_no_address_and_no_second_pyspark() -> None:
    assert "://" not in LOCK.read_text()
    assert "pyspark-client" not in locked()


@pytest.mark.parametrize("place", PLACES)
def test_every_spark_setting_stands_under_its_reason(place: str) -> None:
    paragraphs = (ROOT / "spark-conf" / f"{place}.properties").read_text().strip().split("\n\n")
    settings = [text for text in paragraphs if re.search(r"^spark[.]", text, flags=re.MULTILINE)]

    assert settings
    assert [text for text in settings if not text.startswith("#")] == []


def test_only_the_local_settings_choose_a_master() -> None:
    texts = {place: (ROOT / "spark-conf" / f"{place}.properties").read_text() for place in PLACES}

    assert [place for place, text in texts.items() if re.search(r"^spark[.]master\b", text, re.MULTILINE)] == ["local"]
