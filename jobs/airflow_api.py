"""The REST API of a local Airflow, asked as its one user."""

import http.client
import json
import time
from contextlib import suppress
from typing import Any

from schemas.errors import Problem, UnavailableError

USER = "admin"
_HOST = "127.0.0.1"
_TIMEOUT_SECONDS = 60
_DAG_SECONDS = 60


class AirflowApi:
    """What Airflow knows and is told.

    Args:
        port: Of its API server, on loopback.
        password: Of its one user.
    """

    def __init__(self, port: int, password: str) -> None:
        self._port, self._headers = port, {"Content-Type": "application/json"}
        token = self._asked("POST", "/auth/token", {"username": USER, "password": password})["access_token"]
        self._headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, target: str, body: Any = None) -> Any:
        """What it answers.

        Raises:
            UnavailableError: it refuses.
        """
        return self._asked(method, f"/api/v2{target}", body)

    def wait_for_dag(self, name: str) -> None:
        """Return once the DAG processor has read the DAG.

        Raises:
            UnavailableError: it has not after a minute.
        """
        deadline = time.monotonic() + _DAG_SECONDS
        while time.monotonic() < deadline:
            with suppress(UnavailableError):
                self.ask("GET", f"/dags/{name}")
                return
            time.sleep(0.5)
        raise UnavailableError(
            Problem("ENV_AIRFLOW", name, "not there after a minute", "the DAG; see dag-processor.log")
        )

    def _asked(self, method: str, target: str, body: Any) -> Any:
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request(method, target, None if body is None else json.dumps(body), self._headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise UnavailableError(
                Problem("ENV_AIRFLOW", f"{method} {target}", f"{response.status} {text.decode()[:300]}", "an answer")
            )
        return json.loads(text)
