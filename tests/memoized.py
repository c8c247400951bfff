"""What libraries work out again for every client, application or template, worked out once in a test process.

None of it depends on the test: files of botocore, certificates of authorities, the compiled template of PEFT's model
card, FastAPI's reading of our routes, what Alembic makes of our migrations for a database that is empty. A library that
no longer has the function keeps its own way, and takes the longer time.
"""

from __future__ import annotations

import os
import uuid
from typing import Any


def memoize_libraries() -> None:
    """Give each of the functions below a memory that lasts as long as the process."""
    _botocore_files()
    _certificates()
    _templates()
    _fastapi_routes()
    _migrations_of_empty_databases()


def _botocore_files() -> None:
    """The description of S3 and the table of endpoints, a megabyte of JSON, and which services there are at all.

    Every session reads the files, and looks through 900 folders for their names.
    """
    from botocore.loaders import JSONFileLoader, Loader

    read = JSONFileLoader.load_file
    contents: dict[str, Any] = {}

    def load_file(self: JSONFileLoader, file_path: str) -> Any:
        if file_path not in contents:
            contents[file_path] = read(self, file_path)
        return contents[file_path]

    JSONFileLoader.load_file = load_file
    list_services = Loader.list_available_services
    services: dict[tuple[str, tuple[str, ...]], list[str]] = {}

    def list_available_services(self: Loader, type_name: str) -> list[str]:
        key = type_name, tuple(self.search_paths)
        if key not in services:
            services[key] = list_services(self, type_name)
        return services[key]

    Loader.list_available_services = list_available_services


def _certificates() -> None:
    """The certificates that every client of httpx loads, also one that speaks plain HTTP."""
    from httpx._transports import default

    create = getattr(default, "create_ssl_context", None)
    if create is None:
        return
    contexts: dict[tuple[str | None, str | None], Any] = {}

    def create_ssl_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> Any:
        if verify is not True or cert or not trust_env:
            return create(verify=verify, cert=cert, trust_env=trust_env)
        key = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        if key not in contexts:
            contexts[key] = create()
        return contexts[key]

    default.create_ssl_context = create_ssl_context


def _templates() -> None:
    """The template of the model card that PEFT writes beside every adapter."""
    from jinja2 import Environment

    compile_source = Environment.compile
    compiled: dict[tuple[int, str], tuple[Environment, Any]] = {}

    def compile_once(self: Environment, source: Any, *arguments: Any, **options: Any) -> Any:
        if not self.shared or not isinstance(source, str) or arguments or options:  # not what Template(source) asks
            return compile_source(self, source, *arguments, **options)
        key = id(self), source  # the environment is kept, so that no other gets its id
        if key not in compiled:
            compiled[key] = self, compile_source(self, source)
        return compiled[key][1]

    Environment.compile = compile_once


def _fastapi_routes() -> None:
    """What FastAPI makes of a route's parameters and answers for each application that includes it."""
    from fastapi import routing

    context = getattr(routing, "_EffectiveRouteContext", None)
    if context is None or not hasattr(context, "from_api_route"):
        return
    build = context.from_api_route
    contexts: dict[tuple[int, str], tuple[Any, Any]] = {}

    def from_api_route(*, original_route: Any, include_context: Any) -> Any:
        key = id(original_route), include_context.prefix  # the route is kept, so that no other gets its id
        if key not in contexts:
            built = build(original_route=original_route, include_context=include_context)
            contexts[key] = original_route, built
        return contexts[key][1]

    context.from_api_route = staticmethod(from_api_route)


def _migrations_of_empty_databases() -> None:
    """The statements that bring an empty database to a revision: most tests begin with one, some with several."""
    from alembic import command
    from sqlalchemy import Connection, event, inspect

    upgrade = command.upgrade
    executed: dict[tuple[str, str], list[tuple[str, Any]]] = {}

    def upgrade_again(config: Any, revision: str) -> None:
        connection: Connection = config.attributes["connection"]
        key = connection.dialect.name, revision
        if inspect(connection).get_table_names():
            upgrade(config, revision)
            return
        if key not in executed:
            executed[key] = _upgrade_and_listen(config, revision)
            return
        for statement, parameters in executed[key]:
            is_identity = statement.startswith("INSERT INTO registry ")  # each registry has an id of its own
            own = {**parameters, "id": uuid.uuid4().hex} if is_identity else parameters
            connection.exec_driver_sql(statement, own or None)

    def _upgrade_and_listen(config: Any, revision: str) -> list[tuple[str, Any]]:
        statements: list[tuple[str, Any]] = []

        def listen(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool) -> None:
            if not statement.lstrip().startswith(("SELECT", "PRAGMA")):  # which change nothing
                statements.append((statement, parameters))

        connection = config.attributes["connection"]
        event.listen(connection, "before_cursor_execute", listen)
        try:
            upgrade(config, revision)
        finally:
            event.remove(connection, "before_cursor_execute", listen)
        return statements

    command.upgrade = upgrade_again
