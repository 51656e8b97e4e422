"""Reading a catalogue (requirement A1): every error at once, each with its line and field (requirements A3, B2, B3)."""

from pathlib import Path
from textwrap import dedent

import pytest

from hotpool_agent.catalogue import loader
from hotpool_agent.catalogue.loader import CatalogueError, parse_catalogue, read_catalogue
from hotpool_agent.catalogue.model import PROBE_KINDS, Catalogue, ServiceSpec
from hotpool_agent.catalogue.pair_syntax import normalise_pair
from hotpool_agent.node_name import NodeNameError, node_name
from localfleet.kind import REPOSITORY

WHOLE = """\
version: 1
onAgentExit: stop
advertise: {addresses: [10.0.3.7, "2001:DB8::7"]}
types:
  asr: {devices: [gpu, cpu]}
services:
- id: faster-whisper
  type: asr
  device: gpu
  model: large-v3
  version: 1.4.2
  port: 6007
  appProtocol: kubernetes.io/ws
  maxConcurrent: 8
  scope: local
  heavy: true
  autoStart: true
  attributes: {languages: [zh, en, no], tier: [gold]}
  run: {command: [python, -m, whisper_server, --port, "6007"], env: {A: b}, workingDir: .}
  ready: {http: {path: /health, expectStatus: 200, expectBody: '"ok"'}, timeoutSeconds: 2, startSeconds: 300}
  live: {http: {path: /health}, periodSeconds: 5, failures: 3}
  inFlight: {http: {path: /metrics}, metric: "vllm:num_requests_running"}
  drainTimeoutSeconds: 60
- id: nmt-m2m100
  type: nmt
  port: 5008
  attributes: {rules: [{kind: any_to_any, languages: [zh, en, ja], blocked: [ja-zh]}]}
  observe: {http: {path: /healthz}}
"""


def errors(text: str) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        parse_catalogue(dedent(text), "c.yaml")
    return caught.value.errors


def service(lines: str) -> str:
    """Return a catalogue whose only service has these lines, the first of them in line 5."""
    body = "".join(f"  {line}\n" for line in dedent(lines).strip().splitlines())
    return f"version: 1\nservices:\n- id: a\n  type: asr\n{body}"


def probe_kinds(item: ServiceSpec) -> list[str]:
    """Return the kinds of probe that observe it."""
    return [kind for kind in PROBE_KINDS if getattr(item.observe, kind) is not None]


def test_a_whole_catalogue_is_read() -> None:
    catalogue = parse_catalogue(WHOLE, "c.yaml")
    first, second = catalogue.services
    assert (first.id, first.port, first.heavy, first.auto_start) == ("faster-whisper", 6007, True, True)
    assert (first.app_protocol, first.scope, first.max_concurrent) == ("kubernetes.io/ws", "local", 8)
    assert (second.app_protocol, second.scope, second.max_concurrent) == (None, "node", None)
    assert first.in_flight
    assert (first.in_flight.metric, first.drain_timeout_seconds) == ("vllm:num_requests_running", 60)
    assert catalogue.advertise
    assert catalogue.advertise.addresses == ("10.0.3.7", "2001:db8::7")
    assert first.attributes.languages == ("zh", "en", "no")
    assert first.attributes.others() == {"tier": ("gold",)}
    assert first.run is not None
    assert first.run.command[-1] == "6007"
    assert first.ready.http is not None
    assert first.ready.http.expect_body == '"ok"'
    assert second.attributes.rules[0].blocked == ("ja-zh",)


def test_errors_between_fields_are_reported_beside_those_of_fields() -> None:
    text = """\
        version: 2
        onAgentExit: keep
        drainTimeoutSeconds: 5
        services:
        - id: a
          type: asr
          device: tpu
          run: {command: [x]}
          observe: {tcp: {}}
        - id: a
          type: nmt
          observe: {http: {expectStatus: 1}, tcp: {port: 0}}
          drainTimeoutSeconds: 5
        - 7
        """
    assert [line.removeprefix("c.yaml:").split(": ")[:2] for line in errors(text)] == [
        ["1", "version"],
        ["3", "drainTimeoutSeconds"],
        ["5", "services[0]"],
        ["7", "services[0].device"],
        ["10", "services[1].id"],
        ["12", "services[1].observe"],
        ["12", "services[1].observe.http.expectStatus"],
        ["12", "services[1].observe.tcp.port"],
        ["13", "services[1].drainTimeoutSeconds"],
        ["14", "services[2]"],
    ]


@pytest.mark.parametrize(
    "lines",
    [
        "port: 70000\nobserve: {tcp: {}}",
        "observe: {tcp: {port: x}}",
        "observe: {tpc: {port: 1}}",
        "rnu: {command: [x]}",
        "run: {command: [x, 1]}",
        "run: []",
        "observe: {process: {name: a/b}}",
        "run: {command: [x]}\nport: 5\ninFlight: {http: {}, metrik: a}",
        "observe: {http: {port: 5, scheme: https, caFile: x}}",
    ],
)
def test_nothing_that_follows_from_an_invalid_field_is_reported(lines: str) -> None:
    assert len(errors(service(lines))) == 1


def test_every_error_is_reported_at_once_with_line_and_field() -> None:
    text = """\
        version: 1
        services:
        - id: a
          type: asr
          port: 70000
          run: {command: [x]}
        - id: B!
          type: nmt
          prot: 5
          run: {command: []}
        """
    assert errors(text) == [
        "c.yaml:5: services[0].port: must be 1..65535 (got 70000)",
        "c.yaml:7: services[1].id: must match ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ (got 'B!')",
        "c.yaml:9: services[1].prot: unknown field; did you mean 'port'?",
        "c.yaml:10: services[1].run.command: must not be empty (got [])",
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("run: {command: [x, 1]}", "c.yaml:5: services[0].run.command[1]: must be a string; put it in quotes (got 1)"),
        ("version: 1.4\nrun: {command: [x]}", "services[0].version: must be a string; put it in quotes (got 1.4)"),
        ("port: '80'\nrun: {command: [x]}", "services[0].port: must be a whole number (got '80')"),
        ("device: tpu\nrun: {command: [x]}", "services[0].device: must be 'cpu' or 'gpu' (got 'tpu')"),
        ("attributes: {tier: gold}\nrun: {command: [x]}", "services[0].attributes.tier: must be a list (got 'gold')"),
        (
            "attributes: {rules: [{kind: specific_pairs, pairs: [zh]}]}\nrun: {command: [x]}",
            "services[0].attributes.rules[0].pairs[0]: must be a directed pair of languages",
        ),
        ("port: 80", "services[0]: exactly one of 'run' (supervised) and 'observe' (observed) is required"),
        ("run: {command: [x]}\nready: {http: {path: /}}", "services[0].ready.http: needs a port"),
        (
            "observe: {}",
            "c.yaml:5: services[0].observe: exactly one of http, tcp, exec, grpc, process, systemd, file is",
        ),
        ("observe: {tcp: {port: 5}, file: {path: x}}", "services[0].observe: exactly one of http, tcp, exec, grpc,"),
        ("observe: {tcp: }", "services[0].observe: exactly one of http, tcp, exec, grpc, process, systemd, file is"),
        ("observe: {tcp: {}}", "c.yaml:5: services[0].observe.tcp: needs a port: give the service or the probe one"),
        ("observe: {tcp: {port: 0}}", "services[0].observe.tcp.port: must be 1..65535 (got 0)"),
        ("observe: {process: {}}", "services[0].observe.process: exactly one of name and pidFile is required"),
        ("observe: {process: {name: a, pidFile: b}}", "services[0].observe.process: exactly one of name and pidFile"),
        ("observe: {process: {name: /bin/a}}", "services[0].observe.process.name: must match ^[^/]+$ (got '/bin/a')"),
        ("observe: {process: {name: a, argument: 1}}", "observe.process.argument: must be a string; put it in quotes"),
        ("observe: {process: {pidfile: a}}", "observe.process.pidfile: unknown field; did you mean 'pidFile'?"),
        ("observe: {systemd: {}}", "services[0].observe.systemd.unit: is required"),
        ("observe: {systemd: {unit: whisper}}", "must be the whole name of a unit, for example whisper.service (got"),
        ("observe: {systemd: {unit: a b.service}}", "services[0].observe.systemd.unit: must be the whole name of a"),
        ("observe: {systemd: {unit: a.service, user: 1}}", "observe.systemd.user: must be true or false (got 1)"),
        ("observe: {file: {path: ''}}", "services[0].observe.file.path: must not be empty (got '')"),
        ("observe: {file: {path: x, maxAgeSeconds: 0}}", "observe.file.maxAgeSeconds: must be 0.01..86400 (got 0)"),
        ("observe: {exec: {command: []}}", "services[0].observe.exec.command: must not be empty"),
        ("observe: {grpc: {}}", "services[0].observe.grpc: needs a port: give the service or the probe one"),
        ("observe: {tcp: {port: 5, host: 'a:5'}}", "observe.tcp.host: must be a host name or an IP address, without a"),
        ("observe: {tcp: {port: 5, host: 'fe80::1%eth0'}}", "observe.tcp.host: must be a host name or an IP address"),
        ("observe: {http: {port: 5, scheme: https}}", "observe.http.scheme: must be 'HTTP' or 'HTTPS' (got 'https')"),
        ("observe: {http: {port: 5, caFile: a}}", "observe.http: caFile and insecureSkipVerify need scheme: HTTPS"),
        (
            "port: 5\nobserve: {http: {scheme: HTTPS, caFile: a, insecureSkipVerify: true}}",
            "observe.http: at most one of caFile and insecureSkipVerify is allowed",
        ),
        ("observe: {tcp: {port: 5}}\ndrainTimeoutSeconds: 5", "drainTimeoutSeconds: an observed service is stopped by"),
        ("run: {command: [x]}\ndrainTimeoutSeconds: -1", "services[0].drainTimeoutSeconds: must be 0..86400 (got -1)"),
        ("run: {command: [x]}\ninFlight: {metric: a}", "services[0].inFlight.http: is required"),
        (
            "port: 5\nrun: {command: [x]}\ninFlight: {http: {}}",
            "services[0].inFlight: exactly one of metric and jsonPath is required",
        ),
        ("run: {command: [x]}\ninFlight: {http: {}, metric: a}", "services[0].inFlight.http: needs a port: give the"),
        (
            "port: 5\nrun: {command: [x]}\ninFlight: {http: {}, jsonPath: a}",
            "services[0].inFlight.jsonPath: must match",
        ),
        ("observe: {http: {port: 5, httpHeaders: [{name: 'a b'}]}}", "observe.http.httpHeaders[0].name: must match"),
        ('observe: {http: {port: 5, httpHeaders: [{name: a, value: "b\\n"}]}}', "httpHeaders[0].value: must match"),
        (
            "run: {command: [x]}\nready: {exec: {command: [a]}, tcp: {port: 5}}",
            "ready: at most one of http, tcp, exec,",
        ),
        ("run: {command: [x]}\nlive: {grpc: {}}", "services[0].live.grpc: needs a port"),
        ("observe: {file: {path: x}, failures: 0}", "services[0].observe.failures: must be 1..100 (got 0)"),
        ("scope: remote\nrun: {command: [x]}", "services[0].scope: must be 'node' or 'local' (got 'remote')"),
        ("appProtocol: a/b/c\nrun: {command: [x]}", "services[0].appProtocol: must be a protocol as in a Service port"),
        ("appProtocol: '-'\nrun: {command: [x]}", "services[0].appProtocol: must be a"),
        ("maxConcurrent: 0\nrun: {command: [x]}", "services[0].maxConcurrent: must be 1..1000000 (got 0)"),
        ("port: 1\nautoStart: true\nobserve: {http: {}}", "c.yaml:6: services[0].autoStart: an observed service"),
    ],
)
def test_an_invalid_service_is_reported(lines: str, expected: str) -> None:
    (found,) = errors(service(lines))
    assert expected in found


@pytest.mark.parametrize(
    "probe",
    [
        "tcp: {port: 5}",
        "process: {name: whisper-server, argument: --serve}",
        "process: {pidFile: run/a.pid}",
        "systemd: {unit: whisper@gpu-0.service}",
        "systemd: {unit: dev-disk-by\\x2dlabel-models.device, user: true}",
        "file: {path: beat, maxAgeSeconds: 5}",
        "exec: {command: [./check.sh, '1']}",
        "grpc: {port: 5, service: asr}",
        "tcp: {port: 5, host: '2001:DB8::1'}",
        "http: {port: 5, host: asr.example., scheme: HTTPS, caFile: ca.pem, httpHeaders: [{name: Host, value: 'a:1'}]}",
        "http: {port: 5, scheme: HTTPS, insecureSkipVerify: true}",
    ],
)
def test_a_service_is_observed_by_one_of_seven_probes(probe: str) -> None:
    (read,) = parse_catalogue(service(f"observe: {{{probe}}}"), "c.yaml").services
    assert read.observe is not None
    assert read.observe.failures == 3


def test_a_grpc_probe_without_grpc_is_an_error_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "find_spec", lambda package: None if package == "grpc" else object())
    expected = "c.yaml:5: services[0].observe.grpc: gRPC is not installed: pip install 'hotpool[agent,grpc]'"
    assert errors(service("observe: {grpc: {port: 5}}")) == [expected]
    parse_catalogue(service("observe: {tcp: {port: 5}}"), "c.yaml")


def test_the_documented_examples_are_valid() -> None:
    kinds = [kind for item in documented("agent.md").services for kind in probe_kinds(item)]
    assert kinds == ["http", "tcp", "exec", "grpc", "process", "systemd", "file"]
    supervised, observed, _ = documented("catalogue.md").services
    assert (supervised.run is not None, observed.observe is not None) == (True, True)


def documented(page: str) -> Catalogue:
    """Return the first YAML of a page."""
    text = (REPOSITORY / "docs/reference" / page).read_text(encoding="utf-8")
    return parse_catalogue(text.split("```yaml\n")[1].split("```")[0], page)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "c.yaml:1: must be a mapping"),
        ("- a", "c.yaml:1: must be a mapping"),
        ("version: 1\nservices: [", "c.yaml:2: not valid YAML"),
        ("version: 1\nversion: 1\n", "c.yaml:2: version: is there twice"),
        ("a: \tb: c\n", "not valid YAML"),
        ("version: 2\n", "c.yaml:1: version: must be 1 (got 2)"),
        ("services: []\n", "c.yaml:1: version: is required"),
        ("version: 1\nonAgentExit: go\n", "c.yaml:2: onAgentExit: must be"),
        ("version: 1\nadvertise: {}\n", "c.yaml:2: advertise.addresses: is required"),
        ("version: 1\nadvertise: {addresses: []}\n", "c.yaml:2: advertise.addresses: must not be empty (got [])"),
        (
            "version: 1\nadvertise: {addresses: [10.0.0.1, 10.0.0.1:80]}\n",
            "c.yaml:2: advertise.addresses[1]: must be an IP address, without a zone, port or prefix length (got",
        ),
        ("version: 1\nadvertise: {addresses: [169.254.0.1]}\n", "advertise.addresses[0]: no client can connect to a"),
        (
            "version: 1\nadvertise: {addresses: [10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5]}\n",
            "c.yaml:2: advertise.addresses: must have at most 4 items",
        ),
        ("version: 1\nsevices: []\n", "c.yaml:2: sevices: unknown field; did you mean 'services'?"),
    ],
)
def test_an_invalid_file_is_reported(text: str, expected: str) -> None:
    assert any(expected in error for error in errors(text))


def test_ids_must_differ_and_ports_need_not() -> None:
    one = "- {id: a, type: asr, port: 1, run: {command: [x]}}\n"
    assert errors("version: 1\nservices:\n" + one + one) == [
        "c.yaml:4: services[1].id: 'a' is used twice: services[0] has it too"
    ]
    parse_catalogue("version: 1\nservices:\n" + one + one.replace("id: a", "id: b"), "c.yaml")


def test_a_type_that_counts_devices_needs_services_that_name_theirs() -> None:
    text = "version: 1\ntypes: {asr: {devices: [gpu]}}\nservices:\n- {id: a, type: asr, run: {command: [x]}}\n"
    assert errors(text) == ["c.yaml:4: services[0]: device is required: type asr counts only on gpu"]


def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"missing.yaml: cannot be read: No such file"):
        read_catalogue(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(CatalogueError, match="not UTF-8"):
        read_catalogue(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("given", "expected"),
    [("zh-en", "zh-en"), ("zh-CN-EN", "zh-en"), ("en_GB-pt_BR", "en-pt"), ("auto-en", None), ("zh", None), ("-", None)],
)
def test_pairs_have_a_normal_form(given: str, expected: str | None) -> None:
    assert normalise_pair(given) == expected


@pytest.mark.parametrize("name", ["Edge", "a_b", "", "a..b", "-a", "x" * 201])
def test_a_node_name_that_is_no_dns_name_is_refused(name: str) -> None:
    with pytest.raises(NodeNameError, match="DNS name"):
        node_name(name)


def test_the_node_name_defaults_to_the_host_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Edge-017")
    assert node_name(None) == "edge-017"
    assert node_name("edge.example") == "edge.example"
