"""Settings of the server: flag over variable, variable over file, file over default.

The fields of `Settings` are the one table: name, type, default, unit and the text that stands in ``--help``
and in ``docs/settings.md``. Knows nothing of files, of the process's environment or of what a setting does:
the caller hands over what it read, and whoever uses a setting judges what only it can judge (a store's URL).

Invariants:

1. What `Settings.load` returns has been checked: nobody asks about types and ranges again.
2. `Settings.load` is a function of its arguments.
3. An error names the setting, where its value came from, what was expected and what came.
4. A key of the file that isn't known is an error, since a file is written for fastserve alone. A variable
   that isn't known is reported by `unknown_variables` and no more, since an environment is shared.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from fastserve.errors import DefinitionError, InvariantError, shown
from fastserve.setting_kinds import Kind, any_text, choice, instant, named_urls, share, whole

VARIABLE_PREFIX = "FASTSERVE_"
CONFIG_VARIABLE = "FASTSERVE_CONFIG"  # names the file, as --config does
DEFAULT_FILE = "fastserve.toml"
SERVER_TABLE = "server"
STORES = "stores"  # the setting, and the file's table of named stores
# Beside these tables the file may name the workspace of the feature repo that it lies in.
TOP_LEVEL_KEYS = (SERVER_TABLE, STORES, "workspace")

KIB = 1024
MIB = 1024 * KIB
# What Kubernetes puts into every pod beside a service named `fastserve`; its `FASTSERVE_PORT=tcp://10.0.0.7:80`
# would be taken for the port to listen on.
_SERVICE_LINK = re.compile(
    r"FASTSERVE_(ADMIN_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
LINKED = ("port", "admin_port")  # beside services named `fastserve` and `fastserve-admin`
_SERVICE_LINK_PORT = re.compile(r"(tcp|udp|sctp)://")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table; ``flag_text`` is for a flag that isn't called like its setting."""

    name: str
    kind: Kind
    default: object
    default_text: str
    unit: str
    help: str
    flag_text: str = ""

    @property
    def flag(self) -> str:
        """The name on the command line."""
        return self.flag_text or "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The name in the environment."""
        return VARIABLE_PREFIX + self.name.upper()


def _setting(
    default: Any, kind: Kind, help_text: str, *, unit: str = "", default_text: str = "", flag: str = ""
) -> Any:
    words = default_text or str(default)
    about = {"kind": kind, "unit": unit, "help": help_text, "default": words, "flag": flag}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: default, metadata=about)
    return field(default=default, metadata=about)


_TIMEOUT = whole(1, 600_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one server was told; see the fields' texts, or ``docs/settings.md``."""

    host: str = _setting(
        "127.0.0.1", any_text(), "Address to listen on; 0.0.0.0 for all of IPv4, :: for IPv6."
    )
    port: int = _setting(8080, whole(0, 65_535), "TCP port to listen on; 0 takes any free one and prints it.")
    admin_host: str = _setting(
        "127.0.0.1",
        any_text(),
        "Address of the admin listener. Whoever reaches it may read metrics and definitions without a key.",
    )
    admin_port: int | None = _setting(
        None,
        whole(0, 65_535),
        "TCP port of the admin listener: a console, /metrics, /healthz, /readyz; 0 takes any free one, and "
        "prints it.",
        default_text="none, there is no admin listener",
    )
    workers: int | None = _setting(
        None,
        whole(1, 1024),
        "Worker processes; they share one listening socket.",
        default_text="one per CPU",
    )
    max_requests: int | None = _setting(
        None,
        whole(1, 1_000_000_000),
        "Requests after which a worker is replaced by a new one, less up to a tenth at random.",
        unit="requests",
        default_text="none, workers stay",
    )
    max_rss_mb: int | None = _setting(
        None,
        whole(1, 1 << 20),
        "Memory (RSS, MiB) at which a worker is replaced by a new one.",
        unit="MiB",
        default_text="none, workers stay",
    )
    tls_cert: str | None = _setting(
        None,
        any_text(),
        "PEM file of the server's certificate and those between it and its authority; then the port speaks "
        "TLS 1.2 and 1.3, and nothing else. The admin listener stays plain. Read anew by SIGHUP.",
        default_text="none, the port speaks plain HTTP",
    )
    tls_key: str | None = _setting(
        None,
        any_text(),
        "PEM file of the certificate's key, not encrypted.",
        default_text="none",
    )
    tls_client_ca: str | None = _setting(
        None,
        any_text(),
        "PEM file of authorities; then every client has to show a certificate that one of them signed.",
        default_text="none, clients need no certificate",
    )
    store: str = _setting(
        "local:.fastserve/store",
        any_text(),
        "Online store: local:PATH, dynamodb://REGION or redis://HOST:PORT, with the parameters that "
        "`docs/stores.md` names.",
    )
    stores: Mapping[str, str] = _setting(
        MappingProxyType({}),
        named_urls(),
        "NAME=URL: a store by name, for views that name one (`store=`); all others lie in `store`. The flag "
        "may be repeated; in the file they have a table of their own, `[stores]`.",
        default_text="none",
        flag="--store",
    )
    repo: str = _setting(".", any_text(), "Folder of the feature repo.")
    workspace: str | None = _setting(
        None,
        any_text(),
        "Workspace to serve, in place of the one that the feature repo names.",
        default_text="the repo's",
    )
    server_timeout_ms: int = _setting(
        2000, _TIMEOUT, "Time for one request that names no latency budget; then 504.", unit="ms"
    )
    store_timeout_ms: int = _setting(
        500,
        _TIMEOUT,
        "Time for one call to the store before it is tried again; never more than is left of the request's.",
        unit="ms",
    )
    body_limit_bytes: int = _setting(
        5 * MIB,
        whole(1 * KIB, 256 * MIB),
        "Largest request body; then 413. The default gives each of a batch's 1,000 rows 5 KiB.",
        unit="bytes",
    )
    header_timeout_ms: int = _setting(
        10_000,
        _TIMEOUT,
        "Time for a request's headers to arrive once its first byte has; then 408.",
        unit="ms",
    )
    header_limit_bytes: int = _setting(
        32 * KIB,
        whole(1 * KIB, 1 * MIB),
        "Largest head of a request without its first line, which may have 8 KiB; then 431.",
        unit="bytes",
    )
    body_rate_bytes_per_s: int = _setting(
        1 * KIB,
        whole(1, 1024 * MIB),
        "How fast a request's body has to come on average once header_timeout_ms has passed; then 408.",
        unit="bytes/s",
    )
    write_timeout_ms: int = _setting(
        30_000,
        _TIMEOUT,
        "Time for which a client may read nothing of an answer that waits for it; then it is cut off.",
        unit="ms",
    )
    idle_timeout_ms: int = _setting(
        90_000,
        whole(1, 86_400_000),
        "Time a connection may stay idle. Keep it above the proxy's (ALB 60 s, nginx 75 s), "
        "or the proxy sends a request into a connection that is being closed.",
        unit="ms",
    )
    shutdown_timeout_ms: int = _setting(
        30_000,
        _TIMEOUT,
        "Time for requests under way to end after SIGTERM. Keep it below the orchestrator's grace period.",
        unit="ms",
    )
    linger_us: int = _setting(
        0,
        whole(0, 10_000),
        "Time the first key of a store call waits for others beyond the end of its loop turn.",
        unit="us",
    )
    store_connections: int = _setting(
        32, whole(1, 4096), "Connections to a networked store, per worker; each carries one call at a time."
    )
    hedge_floor_ms: int = _setting(
        5,
        whole(0, 10_000),
        "Least age at which a slow read of DynamoDB gets a second copy on another connection; 0 for none. "
        "Copies are at most 3 % of the calls.",
        unit="ms",
    )
    row_cache_bytes: int = _setting(
        64 * MIB,
        whole(0, 1 << 40),
        "Memory of each worker for rows of views that have a cache_ttl; 0 keeps none.",
        unit="bytes",
    )
    clock: datetime | None = _setting(  # noqa: RUF009 - None, which is immutable
        None,
        instant(),
        "Time at which every request is answered, for replays and tests.",
        default_text="the system's clock",
    )
    log_level: str = _setting(
        "info", choice("debug", "info", "warning", "error"), "Least severe messages that are logged."
    )
    log_format: str = _setting(
        "text", choice("text", "json"), "How the log is written: lines of text, or a JSON object per line."
    )
    slow_request_ms: int | None = _setting(
        None,
        _TIMEOUT,
        "Requests for features that take at least so long are logged, with where their time went; at most 10 "
        "a second and worker.",
        unit="ms",
        default_text="none is logged",
    )
    feature_log: str | None = _setting(
        None,
        any_text(),
        "Folder for a sample of requests and the vectors they were answered with, in JSON lines.",
        default_text="none is written",
    )
    feature_log_every: int = _setting(
        1000, whole(1, 1_000_000_000), "One in so many requests for features is in the sample."
    )
    trace_endpoint: str | None = _setting(
        None,
        any_text(),
        "Where traces of requests are sent to, as OTLP over HTTP, such as http://127.0.0.1:4318; needs the "
        "extra fastserve[otel].",
        default_text="none, nothing is traced",
    )
    trace_sample: float = _setting(
        0.01,
        share(),
        "Share of requests that are traced where the caller doesn't decide by a traceparent header.",
    )
    max_batch_rows: int = _setting(
        1000, whole(1, 10_000), "Rows of one get-features-batch request; then 400.", unit="rows"
    )
    ingest_timeout_ms: int = _setting(
        10_000,
        whole(1, 600_000),
        "Time for the records of one ingest request to be written; then 504, and they may be sent again.",
        unit="ms",
    )
    ingest_max_future_s: int = _setting(
        60,
        whole(0, 86_400),
        "How far ahead of the server's clock a pushed record's time may be; then 400.",
        unit="s",
    )
    max_in_flight: int = _setting(
        10_000,
        whole(1, 1_000_000),
        "Vectors that one worker may have in flight, a batch counting its rows; then 429.",
        unit="vectors",
    )
    overload_wait_ms: int = _setting(
        500,
        whole(1, 60_000),
        "When requests have waited longer than this for a tenth of a second without a break, a worker "
        "refuses what is too much for it with 503, until it keeps up again.",
        unit="ms",
    )
    api_keys: str | None = _setting(
        None,
        any_text(),
        "File of API keys, made by `fastserve keys`; then every request for features must show one of them. "
        "It is watched: what changes in it counts within two seconds.",
        default_text="none, everyone is answered",
    )

    @property
    def clock_ns(self) -> int | None:
        """The fixed clock in nanoseconds since the epoch, exactly, or None where the system's clock runs."""
        return None if self.clock is None else (self.clock - _EPOCH) // timedelta(microseconds=1) * 1000

    @classmethod
    def load(
        cls,
        flags: Mapping[str, str | None],
        environ: Mapping[str, str],
        toml_text: str | None = None,
        toml_path: str = DEFAULT_FILE,
    ) -> Settings:
        """Return the settings that the three sources give together.

        ``flags`` is keyed by the settings' names, None for a flag that wasn't given. An empty variable counts
        as one that isn't there, as compose files and manifests write it. ``toml_path`` is for messages.

        Raises:
            DefinitionError: A value or a key of the file that can't be used, or a file that isn't TOML.
            InvariantError: ``flags`` has a name that is no setting's.

        """
        if not flags.keys() <= {setting.name for setting in SETTINGS}:
            message = f"flags that are no settings: {sorted(flags.keys() - {s.name for s in SETTINGS})}"
            raise InvariantError(message)
        document = _document(toml_text, toml_path)
        table = _server_table(document, toml_path)
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            if setting.name == STORES:
                values[STORES] = _all_stores(setting, flags.get(STORES), environ, document, toml_path)
            elif (text := flags.get(setting.name)) is not None:
                values[setting.name] = _read(setting, text, f"flag {setting.flag}")
            elif text := _variable(setting, environ):
                values[setting.name] = _read(setting, text, f"variable {setting.variable}")
            elif setting.name in table:
                values[setting.name] = _read_toml(setting, table[setting.name], toml_path)
        return cls(**values)


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(
        name=row.name,
        kind=row.metadata["kind"],
        default=row.default if row.default is not MISSING else None,
        default_text=row.metadata["default"],
        unit=row.metadata["unit"],
        help=row.metadata["help"],
        flag_text=row.metadata["flag"],
    )
    for row in fields(Settings)
)


def _variable(setting: Setting, environ: Mapping[str, str]) -> str:
    text = environ.get(setting.variable, "")
    return "" if setting.name in LINKED and _SERVICE_LINK_PORT.match(text) else text


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ``FASTSERVE_`` variables that no setting reads, for a warning: one may be a misspelling."""
    known = {CONFIG_VARIABLE, *(setting.variable for setting in SETTINGS)}
    ours = {
        name for name in environ if name.startswith(VARIABLE_PREFIX) and not _SERVICE_LINK.fullmatch(name)
    }
    return tuple(sorted(ours - known))


def settings_markdown() -> str:
    """Return ``docs/settings.md``."""
    rows = [
        f"| `{s.flag}` | `{s.variable}` | {s.default_text} | {s.unit} | {s.help} Takes {s.kind.expected}. |"
        for s in SETTINGS
    ]
    return "\n".join([_MARKDOWN_HEAD, *rows, ""])


_MARKDOWN_HEAD = f"""# Settings

Each setting is looked for as a flag, then as a variable of the environment, then in the `[{SERVER_TABLE}]`
table of `{DEFAULT_FILE}` (or of the file that `--config` or `{CONFIG_VARIABLE}` names). The keys there are
the flags' names with underscores and no dashes in front: `server_timeout_ms = 2000`. Stores by name stand in
`[{STORES}]`, as in `hot = "redis://10.0.0.7:6379"`; each name is looked for by itself. What nobody gives has
its default. An empty variable counts as one that isn't there. A key that is no setting's is an error; a
variable that begins with `{VARIABLE_PREFIX}` and is no setting's is warned of. The variables that Kubernetes
makes for a service named `fastserve`, `{VARIABLE_PREFIX}PORT=tcp://…` among them, are left alone.

This page is made from `fastserve/config.py` by `make docs`.

| flag | variable | default | unit | |
|---|---|---|---|---|"""


def _document(toml_text: str | None, toml_path: str) -> dict[str, object]:
    """Return the file's tables, every one of them known."""
    if toml_text is None:
        return {}
    try:
        document = tomllib.loads(toml_text)
    except tomllib.TOMLDecodeError as error:
        message = f"{toml_path}: expected TOML, got what isn't: {str(error)[:200]}"
        raise DefinitionError(message) from None
    _refuse_unknown(document, TOP_LEVEL_KEYS, toml_path)
    return document


def _all_stores(
    setting: Setting,
    flags: str | None,
    environ: Mapping[str, str],
    document: Mapping[str, object],
    toml_path: str,
) -> Mapping[str, str]:
    """Return the named stores: each name's flag over its variable, its variable over the file."""
    named: dict[str, str] = {}
    if STORES in document:
        named |= _urls(_read_toml(setting, document[STORES], toml_path))
    if text := _variable(setting, environ):
        named |= _urls(_read(setting, text, f"variable {setting.variable}"))
    if flags is not None:
        named |= _urls(_read(setting, flags, f"flag {setting.flag}"))
    return MappingProxyType(named)


def _urls(value: object) -> dict[str, str]:
    return dict(value) if isinstance(value, Mapping) else {}


def _server_table(document: Mapping[str, object], toml_path: str) -> dict[str, object]:
    """Return the server's table of the file, every key of it known."""
    table = document.get(SERVER_TABLE, {})
    if not isinstance(table, dict):
        message = f"{toml_path}: {SERVER_TABLE}: expected a table, got {shown(table)}"
        raise DefinitionError(message)
    known = tuple(setting.name for setting in SETTINGS if setting.name != STORES)
    _refuse_unknown(table, known, f"{toml_path}: [{SERVER_TABLE}]")
    return table


def _refuse_unknown(table: Mapping[str, object], known: tuple[str, ...], place: str) -> None:
    for key in table:
        if key not in known:
            message = f"{place}: unknown key {shown(key)}, expected one of {', '.join(known)}"
            if SERVER_TABLE in known and key in {setting.name for setting in SETTINGS}:
                message += f"; {key} stands under [{SERVER_TABLE}]"
            raise DefinitionError(message)


def _read(setting: Setting, text: str, source: str) -> object:
    try:
        return setting.kind.from_text(text)
    except ValueError:
        raise _refused(setting, text, source) from None


def _read_toml(setting: Setting, value: object, toml_path: str) -> object:
    try:
        return setting.kind.from_toml(value)
    except ValueError:
        raise _refused(setting, value, f"file {toml_path}") from None


def _refused(setting: Setting, value: object, source: str) -> DefinitionError:
    came = shown(value)
    if setting.name == STORES and "@" in str(value):
        came = "what has an @ in it, before which may stand a password, and isn't repeated"
    return DefinitionError(f"{setting.name} ({source}): expected {setting.kind.expected}, got {came}")
