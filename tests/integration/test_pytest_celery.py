"""pytest-celery's API on this project's app: each test has a broker, a backend and workers of its own.

A test that asks for `celery_worker` or `celery_setup` may call the project's tasks as any program does.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import celery
import pytest
from celery import Celery, chord
from pytest_celery import (
    CeleryTestBackend,
    CeleryTestBroker,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
    CeleryWorkerContainer,
    RedisContainer,
    RedisTestBroker,
)
from pytest_celery.vendors.worker.tasks import identity
from pytest_docker_tools import container
from pytest_docker_tools.exceptions import ContainerFailed

from settings import ROOT
from tasks.basic_tasks import add, describe_request, logged_task, task_with_progress
from tests.local_engine.docker_fixtures import project_files
from tests.local_engine.engine import LocalEngine
from tests.local_engine.engine_fixtures import SocketServer
from tests.local_engine.image import built, fetched
from tests.local_engine.part import NotLocal
from tests.local_engine.project_fixtures import ProjectWorker, worker_container
from tests.waiting import processes_of, wait_for

DEADLINE = 60.0  # seconds; only a test that fails takes that long


# --- one worker -----------------------------------------------------------------------------------------


def test_a_task_runs_on_the_worker_of_the_test(celery_worker: CeleryTestWorker) -> None:
    assert add.delay(4, 5).get(timeout=DEADLINE) == 9
    assert describe_request.delay().get(timeout=DEADLINE)["worker"] == celery_worker.hostname()


def test_every_node_of_a_setup_is_ready(celery_setup: CeleryTestSetup) -> None:
    assert len(celery_setup) == 3
    assert celery_setup.ready(ping=True, control=True, docker=True)


def test_the_backend_holds_the_results_of_this_test_only(
    celery_setup: CeleryTestSetup, celery_backend: CeleryTestBackend
) -> None:
    result = add.delay(1, 1)
    assert result.get(timeout=DEADLINE) == 2
    assert celery_backend.container.client.keys("celery-task-meta-*") == [f"celery-task-meta-{result.id}"]


def test_the_log_of_a_worker_can_be_waited_for(celery_worker: CeleryTestWorker) -> None:
    logged_task.delay("a line from the task")
    celery_worker.wait_for_log("a line from the task")
    celery_worker.assert_log_does_not_exist("a line from nobody")


def test_a_worker_knows_its_own_processes_only(celery_worker: CeleryTestWorker) -> None:
    main_process, pool_child = celery_worker.get_running_processes_info(["pid", "ppid"])
    assert pool_child["ppid"] == main_process["pid"]


# --- faults ---------------------------------------------------------------------------------------------


def test_a_restarted_broker_is_found_again(
    celery_setup: CeleryTestSetup, celery_broker: CeleryTestBroker
) -> None:
    assert add.delay(1, 2).get(timeout=DEADLINE) == 3
    celery_broker.restart()
    assert add.delay(3, 4).get(timeout=DEADLINE) == 7


def test_a_restarted_worker_keeps_its_name_and_its_log(celery_worker: CeleryTestWorker) -> None:
    logged_task.delay("from the first life").get(timeout=DEADLINE)
    celery_worker.restart()
    assert describe_request.delay().get(timeout=DEADLINE)["worker"] == celery_worker.hostname()
    celery_worker.assert_log_exists("from the first life")
    celery_worker.assert_log_exists("describe_request")


class TestLateAcknowledgement:
    @pytest.fixture
    def default_worker_env(self, default_worker_env: dict[str, str]) -> dict[str, str]:
        """The profile for lessons: what is not acknowledged is delivered again after 3 seconds."""
        return default_worker_env | {"CELERY_PROFILE": "drill"}

    def test_the_task_of_a_killed_worker_is_delivered_again(
        self, celery_worker: CeleryTestWorker, celery_broker: CeleryTestBroker
    ) -> None:
        result = task_with_progress.delay(total=1000, seconds_per_item=1)  # does not end in either life
        wait_for("the first delivery runs", lambda: result.state != "PENDING", DEADLINE)

        celery_worker.kill()
        assert celery_worker.container.status == "exited"
        assert celery_broker.container.client.hkeys("unacked")

        celery_worker.restart()
        received = f"task_with_progress[{result.id}] received"
        wait_for("the second delivery", lambda: celery_worker.logs().count(received) == 2, DEADLINE)


class TestWorkerThatCannotStart:
    @pytest.fixture
    def default_worker_env(self, default_worker_env: dict[str, str]) -> dict[str, str]:
        return default_worker_env | {"CELERY_PROFILE": "misspelled"}

    def test_its_log_is_shown_at_once(self, request: pytest.FixtureRequest) -> None:
        with pytest.raises(ContainerFailed) as failure:
            request.getfixturevalue("celery_worker")
        assert "CELERY_PROFILE='misspelled'" in failure.value._container.logs()


# --- two workers ----------------------------------------------------------------------------------------

second_worker_container = worker_container()


class TestTwoWorkers:
    @pytest.fixture
    def celery_worker_cluster(
        self,
        celery_worker: CeleryTestWorker,
        second_worker_container: CeleryWorkerContainer,
        celery_setup_app: Celery,
    ) -> CeleryWorkerCluster:
        return CeleryWorkerCluster(celery_worker, CeleryTestWorker(second_worker_container, celery_setup_app))

    def test_the_header_of_a_chord_runs_on_both(
        self, celery_setup: CeleryTestSetup, celery_worker_cluster: CeleryWorkerCluster
    ) -> None:
        header = [task_with_progress.s(total=5), task_with_progress.s(total=5)]  # one for each worker
        body = chord(header)(describe_request.si()).get(timeout=DEADLINE)
        assert body["worker"] in {worker.hostname() for worker in celery_worker_cluster}
        # The body may end before a header's last line, received and succeeded, is in the log.
        wait_for(
            "two lines in each log",
            lambda: all(worker.logs().count("task_with_progress[") == 2 for worker in celery_worker_cluster),
        )


# --- pytest-celery's own worker -------------------------------------------------------------------------

plugin_worker_container = worker_container(wrapper_class=CeleryWorkerContainer)


class PluginWorker:
    """The worker, the app and the tasks that pytest-celery brings. Its files go through the volume."""

    @pytest.fixture
    def default_worker_container_cls(self) -> type[CeleryWorkerContainer]:
        return CeleryWorkerContainer

    @pytest.fixture
    def default_worker_container(
        self, plugin_worker_container: CeleryWorkerContainer
    ) -> CeleryWorkerContainer:
        return plugin_worker_container

    @pytest.fixture
    def default_worker_initial_content(self, default_worker_utils_module: ModuleType) -> dict[str, bytes]:
        return CeleryWorkerContainer.initial_content(utils_module=default_worker_utils_module)

    @pytest.fixture
    def celery_setup_cls(self) -> type[CeleryTestSetup]:
        return CeleryTestSetup

    @pytest.fixture
    def celery_setup_app(self, celery_setup_config: dict[str, str], celery_setup_name: str) -> Celery:
        return CeleryTestSetup.create_setup_app(celery_setup_config, celery_setup_name)


class TestWorkerOfThePlugin(PluginWorker):
    def test_it_runs_the_tasks_of_the_plugin(self, celery_setup: CeleryTestSetup) -> None:
        assert identity.s("unchanged").apply_async().get(timeout=DEADLINE) == "unchanged"
        assert celery_setup.ready(ping=True)

    def test_its_processes_have_the_name_celery(self, celery_worker: CeleryTestWorker) -> None:
        assert len(celery_worker.get_running_processes_info(["pid"], {"name": "celery"})) == 0
        assert len(celery_worker.get_running_processes_info(["pid", "name"], {"name": "celery"})) > 1


OTHER_TASKS = b"""
import time
from celery import Celery
app = Celery()
@app.task(name="where")
def where():
    return __file__, time.strftime("%Z")
"""


class OtherTasks(PluginWorker):
    """Tasks in a folder `tests` without `__init__.py`. This project has a package of that name."""

    @pytest.fixture
    def default_worker_initial_content(self) -> dict[str, bytes]:
        return {"app.py": b"from tests.tasks import app", "tests/tasks.py": OTHER_TASKS}


class TestFilesOfAVolume(OtherTasks):
    def test_they_win_over_this_project(self, celery_setup: CeleryTestSetup) -> None:
        place, _ = celery_setup.app.send_task("where").get(timeout=DEADLINE)
        assert place.endswith("/tests/tasks.py")
        assert celery_setup.worker
        code, output = celery_setup.worker.container.exec_run(
            ["python", "-c", "from tests import tasks; print(tasks.__file__)"]
        )
        assert (code, output.decode()) == (0, f"{place}\n")

    def test_this_project_is_not_among_them(self, celery_worker: CeleryTestWorker) -> None:
        code, output = celery_worker.container.exec_run("python -c 'import celery_app'")
        assert code == 1
        assert b"No module named 'celery_app'" in output


class TestVariablesReadAtStart(OtherTasks):
    """A forked worker would have what was read at the start of the process from which it was forked."""

    @pytest.fixture
    def default_worker_env(self, default_worker_env: dict[str, str]) -> dict[str, str]:
        return default_worker_env | {"REMAP_SIGTERM": "SIGQUIT", "TZ": "MOON-3"}

    def test_they_have_the_values_of_the_worker(self, celery_setup: CeleryTestSetup) -> None:
        assert celery_setup.app.send_task("where").get(timeout=DEADLINE)[1] == "MOON"
        assert celery_setup.worker
        celery_setup.worker.kill("SIGTERM")
        celery_setup.worker.assert_log_exists("worker: Cold shutdown")


imageless_worker_container = worker_container(command=None, wrapper_class=CeleryWorkerContainer)
imageless_redis = container(
    image="redis:latest", network="{default_pytest_celery_network.name}", wrapper_class=SocketServer
)


class TestCommandOfTheImage(PluginWorker):
    """Containers that are started without a command."""

    @pytest.fixture
    def default_worker_container(
        self, imageless_worker_container: CeleryWorkerContainer
    ) -> CeleryWorkerContainer:
        return imageless_worker_container

    @pytest.fixture
    def celery_broker(self, imageless_redis: RedisContainer) -> RedisTestBroker:
        return RedisTestBroker(imageless_redis)

    def test_it_is_the_one_of_the_dockerfile(self, celery_setup: CeleryTestSetup) -> None:
        assert identity.s("unchanged").apply_async().get(timeout=DEADLINE) == "unchanged"
        assert celery_setup.worker
        assert celery_setup.worker.hostname() in celery_setup.worker.logs()


class TestSpawnedPool(PluginWorker):
    @pytest.fixture
    def celery_setup_app(self, celery_setup_config: dict[str, str], celery_setup_name: str) -> Celery:
        app = CeleryTestSetup.create_setup_app(celery_setup_config, celery_setup_name)
        app.conf.worker_pool_start_method = "spawn"
        return app

    @pytest.fixture
    def default_worker_initial_content(
        self, default_worker_utils_module: ModuleType, celery_setup_app: Celery
    ) -> dict[str, bytes]:
        return CeleryWorkerContainer.initial_content(
            utils_module=default_worker_utils_module, worker_app=celery_setup_app
        )

    def test_its_children_do_not_need_the_supervisor(self, celery_setup: CeleryTestSetup) -> None:
        assert identity.s("unchanged").apply_async().get(timeout=DEADLINE) == "unchanged"
        assert celery_setup.worker
        assert "SpawnPoolWorker-" in celery_setup.worker.logs()


# --- the local engine -----------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    engine = LocalEngine()
    yield engine
    engine.close()


def test_a_call_that_the_local_engine_lacks_is_named(engine: LocalEngine) -> None:
    with pytest.raises(NotImplementedError, match=r"Containers\.prune: run this test with --docker"):
        engine.containers.prune()
    with pytest.raises(NotImplementedError, match="rabbitmq:latest"):
        engine.containers.run(image="rabbitmq:latest", network="any")
    with pytest.raises(NotImplementedError, match=r"attrs\['State'\]"):
        engine.containers.run(image="redis", network="any").attrs["State"]
    with pytest.raises(NotImplementedError, match="a server has a socket"):
        _ = RedisContainer(engine.containers.run(image="redis", network="any")).client
    with pytest.raises(NotImplementedError, match="a server has a socket"):
        _ = (
            "6379/tcp"
            in engine.containers.run(image="redis", network="any").attrs["NetworkSettings"]["Ports"]
        )
    with pytest.raises(NotImplementedError, match="redis-cli"):
        engine.containers.run(image="redis", network="any").exec_run("redis-cli shutdown")
    with pytest.raises(NotImplementedError, match="cap_add"):
        engine.containers.run(image="redis", network="any", command=["redis-server"], cap_add=["ALL"])


DOCKERFILE = """
# A first stage, whose command is not that of the image.
FROM python AS base
ENV LEFT=behind
CMD ["python"]

FROM python
ARG QUEUE=celery
ARG NAME='a worker'
# The next line goes on, and has a comment in it.
ENV WORKER_NAME=$NAME \\
    # as in the command
    QUEUES="$QUEUE,${QUEUE}2"
ENV GREETING it's me
ENV PATH=/opt/bin:$PATH
env lower=case
WORKDIR /app
COPY content/ .
"""


def test_a_dockerfile_is_read_for_command_environment_and_folder(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(DOCKERFILE + "CMD celery -A app worker -n $WORKER_NAME@%h -Q ${QUEUES} -E $NOTHING\n")
    image = built("ours", path, {"QUEUE": "basic"})
    assert image.folder == "/app"
    assert image.environment == {
        "WORKER_NAME": "a worker",
        "QUEUES": "basic,basic2",
        "GREETING": "it's me",
        "lower": "case",
    }
    command = image.command_in(image.environment | {"WORKER_NAME": "other"})
    assert command == ["celery", "-A", "app", "worker", "-n", "other@%h", "-Q", "basic,basic2", "-E"]

    path.write_text(DOCKERFILE + 'CMD ["celery", "worker", "$QUEUE"]\n')
    assert built("ours", path, {}).command_in({"QUEUE": "x"}) == ["celery", "worker", "$QUEUE"]


def test_an_image_that_cannot_run_here_says_why(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(DOCKERFILE)
    assert built("ours", path, {"CELERY_VERSION": celery.__version__}).id == "ours"
    with pytest.raises(NotLocal, match=rf"old with Celery 4\.4\.7: {celery.__version__} is installed here"):
        built("old", path, {"CELERY_VERSION": "4.4.7"})
    path.write_text(f'{DOCKERFILE}ENTRYPOINT ["/start.sh"]\n')
    with pytest.raises(NotLocal, match=r"ENTRYPOINT in .*/Dockerfile"):
        built("ours", path, {})
    assert fetched("rabbitmq:4").command_in({}) == []


@pytest.fixture
def folder() -> Iterator[str]:
    """A folder for all temporary files of a test run. pytest's own path is too long for sockets."""
    name = f"{tempfile.gettempdir()}/t"
    os.mkdir(name)
    yield name
    shutil.rmtree(name)


def run_pytest(folder: str, *arguments: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env=clean | {"TMPDIR": folder},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def nothing_is_left(folder: str) -> bool:
    return not list(Path(folder).glob("learn-celery-*")) and not processes_of(folder)


def test_tests_run_side_by_side_and_leave_nothing_behind(folder: str) -> None:
    tests = ["test_a_task_runs_on_the_worker_of_the_test", "test_a_restarted_broker_is_found_again"]
    run = run_pytest(folder, "-n", "2", *(f"{__file__}::{test}" for test in tests))
    output, _ = run.communicate(timeout=DEADLINE)
    assert "2 passed" in output, output
    wait_for("no process and no folder is left", lambda: nothing_is_left(folder))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_an_interrupted_run_leaves_nothing_behind(folder: str, number: signal.Signals) -> None:
    def runs_a_task() -> bool:
        logs = Path(folder).rglob("learn-celery-*/logs/celery_test_worker@*.log")
        return any("task_with_progress[" in log.read_text() for log in logs)

    run = run_pytest(folder, f"{__file__}::TestLateAcknowledgement")
    wait_for("the worker of the inner test has a task", runs_a_task, DEADLINE)
    run.send_signal(number)
    run.communicate(timeout=DEADLINE)
    wait_for("no process and no folder is left", lambda: nothing_is_left(folder))


# --- Docker ---------------------------------------------------------------------------------------------


def test_docker_without_an_engine_is_refused_in_one_line(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/no-engine.sock")
    run = run_pytest(folder, "--docker", __file__)
    output, _ = run.communicate(timeout=DEADLINE)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert output.startswith("ERROR: --docker: no Docker engine answers")


PROJECT_MODULES = """
import sys, celery_app
celery_app.app.loader.import_default_modules()
for name, module in sys.modules.items():
    if name.partition(".")[0] in {"celery_app", "settings", "tasks", "services"}:
        print(module.__file__)
"""


class TestFilesForDocker:
    @pytest.fixture
    def default_worker_container_cls(self) -> type[ProjectWorker]:
        return ProjectWorker  # which has this project from its volume alone

    @pytest.fixture
    def default_worker_initial_content(self) -> dict[str, bytes]:
        return project_files()

    def test_the_volume_has_all_that_a_worker_imports(self, celery_setup: CeleryTestSetup) -> None:
        assert celery_setup.ready(ping=True)
        assert celery_setup.worker
        _, output = celery_setup.worker.container.exec_run(["python", "-c", PROJECT_MODULES])
        files = output.decode().splitlines()
        assert any(file.endswith("tasks/basic_tasks.py") for file in files)
        assert [file for file in files if file.startswith(str(ROOT))] == []
