"""The packaged service under a real systemd: what holds in the unit, and through which faults."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from container import Container, booted, missing_right
from packaged import Packages, install
from standardwebhooks import Webhook
from web_files import TLS, WebFiles, users

pytestmark = [pytest.mark.slow(40), pytest.mark.timeout(300)]

UNIT = "gpu-node-exporter.service"
BRISK = "poll: {fast: 250ms, deadline: 100ms}\n"
FAKE_DRIVER = "Environment=LD_LIBRARY_PATH=/opt/fakenvml FAKE_NVML_SCENARIO=/opt/scenario\n"
URL = "http://127.0.0.1:9836"
GET = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().decode())"
SECRET = b"a secret of 24 bytes ..."
REQUESTS = """
rules: [{alert: Warm, metric: gpu_temperature_celsius, above: 1, actions: [scale-out]}]
actions: [{name: scale-out, receiver: autoscaler}]
receivers:
  - name: autoscaler
    webhook_configs:
      - url: http://127.0.0.1:8999/
        signing_secret_file: ${CREDENTIALS_DIRECTORY}/scaler-webhook
"""
# Keeps what it was sent, and ends.
RECEIVER = """
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        json.dump([dict(self.headers), body], open("/opt/received.new", "w"))
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8999), Handler).handle_request()
import os
os.rename("/opt/received.new", "/opt/received")
"""
# Statuses without a password, with the right one, and with a wrong one.
ASK = """
import base64, http.client, ssl, sys
for password in (None, "secret", "guess"):
    tls = ssl.create_default_context(cafile=sys.argv[1])
    client = http.client.HTTPSConnection("localhost", 9836, context=tls)
    word = base64.b64encode(f"alice:{password}".encode()).decode()
    known = {"Authorization": f"Basic {word}"} if password else {}
    client.request("GET", "/metrics", headers=known)
    print(client.getresponse().status)
"""
# What the service's user gets when it opens a device.
OPENER = """
import errno, os, sys
for path in sys.argv[2:]:
    try:
        os.close(os.open(path, os.O_RDWR))
        word = "opened"
    except OSError as error:
        word = errno.errorcode[error.errno]
    print(path, word, file=open(sys.argv[1], "a"))
"""


@pytest.fixture(scope="module")
def machine(
    packages: Packages, fake_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """Give a machine on which the package is installed."""
    if (why := missing_right()) is not None:
        pytest.skip(why)
    shared = {packages.folder: "/opt/packages", fake_library: "/opt/fakenvml"}
    with booted(tmp_path_factory.mktemp("machine"), shared) as container:
        container.write("/opt/scenario", "profile=h100x8\n")
        container.write("/opt/get.py", GET)
        container.write("/opt/open.py", OPENER)
        install(container, packages.deb)
        yield container


class Service:
    """The service on that machine, as packaged and with no history."""

    def __init__(self, machine: Container) -> None:
        self.machine = machine
        self.begin()

    def begin(self) -> None:
        """Stop it, and undo what a test may have changed."""
        self.machine.sh(
            f"systemctl stop {UNIT} gpu-node-exporter.socket; systemctl revert {UNIT};"
            f"systemctl reset-failed {UNIT};"
            "rm -rf /var/lib/private/gpu-node-exporter /etc/credstore /opt/received*;"
            "printf 'profile=h100x8\\n' > /opt/scenario"
        )

    def start(self, *settings: str, config: str = BRISK, check: bool = True) -> None:
        """Start it with more settings in its section [Service], and with a config."""
        drop_in = "[Service]\n" + "\n".join(settings)
        self.machine.write(f"/etc/systemd/system/{UNIT}.d/test.conf", drop_in)
        self.machine.write("/etc/gpu-node-exporter/config.yml", config)
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "start", UNIT, check=check)

    def show(self, name: str) -> str:
        """Return a property of the unit."""
        return self.machine.show(UNIT, name)[name]

    def get(self, path: str = "/metrics") -> str:
        """Return what it answers."""
        return self.machine.run("/usr/bin/python3", "/opt/get.py", URL + path).stdout

    def journal(self, *matches: str) -> str:
        """Return what this run of it, and systemd about it, has logged."""
        return self.machine.journal(f"--unit={UNIT}", *matches)


@pytest.fixture
def service(machine: Container) -> Iterator[Service]:
    """Give the service, and forget what was done with it."""
    service = Service(machine)
    yield service
    service.begin()


def until_property(service: Service, name: str, pattern: str) -> None:
    """Wait until a property of the unit matches."""
    service.machine.until(f"systemctl show {UNIT} --value --property={name} | grep -qE '{pattern}'")


# Start


def test_active_is_a_full_page(service: Service) -> None:
    """With a driver that takes its time, whoever is ordered after the service scrapes every GPU."""
    service.machine.write("/opt/scenario", "profile=h100x8\ninit.delay_ms=1500\ngpu5.lost=1\n")
    after = f"ExecStartPost=/bin/sh -c 'python3 /opt/get.py {URL}/metrics > $STATE_DIRECTORY/page'"
    service.start(FAKE_DRIVER, after)
    page = service.machine.sh("cat /var/lib/gpu-node-exporter/page")
    ups = re.findall(r'^gpu_up\{gpu="(\d)".*\} (\d)$', page, re.MULTILINE)
    assert ups == [(str(gpu), "0" if gpu == 5 else "1") for gpu in range(8)]
    assert page.count("\ngpu_memory_total_bytes{") == 7
    status = service.machine.sh(f"systemctl status {UNIT}")
    assert 'Status: "7 of 8 GPUs answer: GPU 5 lost"' in status
    assert "active (running)" in status


def test_the_installed_unit_is_good(service: Service) -> None:
    """Systemd's checker says nothing about the units where they are installed."""
    units = f"{UNIT} gpu-node-exporter.socket"
    done = service.machine.run("sh", "-c", f"systemd-analyze verify {units}")
    assert (done.stdout, done.stderr) == ("", "")


def test_a_driver_that_is_late_is_waited_for(service: Service) -> None:
    """Without a driver it is active, says so, and is not restarted; when one comes, it is used."""
    service.machine.write("/opt/scenario", "profile=h100x8\ninit.ret=9\n")  # driver not loaded
    service.start(FAKE_DRIVER, "WatchdogSec=1s")
    assert service.show("StatusText").startswith("no GPU readings: nvmlInit: driver_not_loaded")
    survives_the_watchdog(service)
    service.machine.write("/opt/scenario", "profile=h100x8\n")
    until_property(service, "StatusText", "^8 of 8 GPUs answer$")
    assert service.show("NRestarts") == "0"


def test_gpus_that_hang_are_no_reason_to_start_anew(service: Service) -> None:
    """With every GPU stuck in the driver, the watchdog is content, and a stop still works."""
    service.machine.write("/opt/stuck", "")
    service.start(FAKE_DRIVER, "WatchdogSec=1s")
    service.machine.write("/opt/scenario", "profile=h100x8\ngpu*.block=/opt/stuck\n")
    until_property(service, "StatusText", "^0 of 8 GPUs answer: GPU 0 hung.*GPU 7 hung")
    survives_the_watchdog(service)
    service.machine.run("systemctl", "stop", UNIT)
    assert service.machine.show(UNIT, "Result", "NRestarts") == {
        "Result": "success",
        "NRestarts": "0",
    }


def survives_the_watchdog(service: Service) -> None:
    """Wait until the last sign of life is three of the watchdog's times later than now."""
    name = "WatchdogTimestampMonotonic"
    later = int(service.show(name)) + 3_000_000
    service.machine.until(
        f"test $(systemctl show {UNIT} --value --property={name}) -gt {later} "
        f"-o $(systemctl show {UNIT} --value --property=NRestarts) -gt 0"
    )
    assert service.show("NRestarts") == "0"


# Faults


def test_a_hung_poll_is_restarted(service: Service) -> None:
    """When a file of /proc does not answer, the watchdog acts; the journal has the poll's stack."""
    service.start(FAKE_DRIVER, "WatchdogSec=1s")
    pid = service.show("MainPID")
    service.machine.sh(
        f"mkfifo -m 644 /opt/silent; nsenter --target {pid} --mount "
        "mount --bind /opt/silent /proc/meminfo"
    )
    until_property(service, "NRestarts", "^1$")
    until_property(service, "StatusText", "^8 of 8 GPUs answer")
    assert service.show("ActiveState") == "active"
    assert service.show("MainPID") != pid
    journal = service.journal()
    assert "Watchdog timeout" in journal
    stack = journal[journal.index("Fatal Python error: Aborted") :]
    assert "host/memory.py" in stack


def test_killed_it_is_back_in_two_seconds_and_has_lost_nothing(service: Service) -> None:
    """After SIGKILL the request that was committed is still pending, and is delivered, signed."""
    service.machine.write("/etc/credstore/scaler-webhook", whsec(), 0o600)
    service.start(FAKE_DRIVER, config=BRISK + REQUESTS)
    storage = "--storage.path=/var/lib/gpu-node-exporter"
    command = f"gpu-node-exporter scale-out status {storage}"
    before = service.machine.until(f"{command} | grep '1 pending' && {command}")
    seconds: list[float] = []
    while min(seconds, default=2.0) >= 2 and len(seconds) < 10:  # some may meet a busy machine
        service.machine.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", UNIT)
        until_property(service, "NRestarts", f"^{len(seconds) + 1}$")
        until_property(service, "ActiveState", "^active$")
        moments = service.machine.show(
            UNIT, "ActiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic"
        )
        left, entered = (
            int(moments[f"Active{way}TimestampMonotonic"]) for way in ("Exit", "Enter")
        )
        seconds.append((entered - left) / 1e6)
    assert min(seconds) < 2, seconds
    (identifier,) = re.findall(r"^([0-9A-Z]{26}) .* pending", before, re.MULTILINE)
    service.machine.write("/opt/receiver.py", RECEIVER)
    service.machine.run("systemd-run", "/usr/bin/python3", "/opt/receiver.py")
    headers, body = json.loads(service.machine.until("cat /opt/received"))
    assert identifier in headers["webhook-id"]
    Webhook(whsec()).verify(body, {name.lower(): value for name, value in headers.items()})
    service.machine.until(f"{command} | grep '1 delivered'")


def test_it_is_restarted_for_ever_but_not_with_wrong_flags(service: Service) -> None:
    """A dozen failed starts in a row are not the end; a flag that does not exist is."""
    service.start("RestartSec=10ms", config="poll: {fast: 10}", check=False)
    service.machine.until(f"test $(systemctl show {UNIT} --value --property=NRestarts) -ge 12")
    service.machine.write("/etc/gpu-node-exporter/config.yml", BRISK)
    until_property(service, "ActiveState", "^active$")
    service.machine.run("systemctl", "stop", UNIT)
    service.start("Environment=ARGS=--no-such-flag", "EnvironmentFile=", check=False)
    until_property(service, "ActiveState", "^failed$")
    assert service.machine.show(UNIT, "ExecMainStatus", "NRestarts") == {
        "ExecMainStatus": "2",
        "NRestarts": "0",
    }
    assert "there is no --no-such-flag" in service.journal()


def test_a_bad_reload_fails_and_keeps_the_old_config(service: Service) -> None:
    """A bad file fails `systemctl reload`, with the mistake in the journal; SIGHUP alone too."""
    service.start(FAKE_DRIVER)
    pid = service.show("MainPID")
    service.machine.write("/etc/gpu-node-exporter/config.yml", "poll: {fast: 10}\n")
    assert service.machine.run("systemctl", "reload", UNIT, check=False).returncode != 0
    mistake = 'config.yml:1:14: poll.fast: "10" has no unit; write 10s'
    assert mistake in service.journal()
    assert "gpu_exporter_config_last_reload_successful 1" in service.get()
    service.machine.run("systemctl", "kill", "--signal=HUP", "--kill-who=main", UNIT)
    until_property(service, "StatusText", "the last config was bad, the one before goes on$")
    assert f"config not reloaded: /etc/gpu-node-exporter/{mistake}" in service.journal("SOURCE=app")
    service.machine.write("/etc/gpu-node-exporter/config.yml", BRISK)
    service.machine.run("systemctl", "reload", UNIT)
    until_property(service, "StatusText", "^8 of 8 GPUs answer$")
    assert service.machine.show(UNIT, "MainPID", "ActiveState", "NRestarts") == {
        "MainPID": pid,
        "ActiveState": "active",
        "NRestarts": "0",
    }


def test_a_reload_with_a_bad_web_config_fails(service: Service) -> None:
    """`systemctl reload` looks at the files that ARGS names, and then goes no further."""
    default, web = "/etc/default/gpu-node-exporter", "/etc/gpu-node-exporter/web.yml"
    service.machine.write("/opt/default", service.machine.sh(f"cat {default}"))
    service.machine.write(default, f'ARGS="--web.config.file={web} --no-collector.power"\n')
    service.machine.write(web, "http_server_config: {http2: false}\n")
    try:
        service.start(FAKE_DRIVER)
        service.machine.run("systemctl", "reload", UNIT)
        service.machine.write(web, "nonsense: 1\n")
        assert service.machine.run("systemctl", "reload", UNIT, check=False).returncode != 0
        assert f"{web}:1:1: nonsense: unknown key" in service.journal()
    finally:
        service.machine.sh(f"cat /opt/default > {default}")


# The sandbox


def test_only_the_service_reads_its_credentials(service: Service) -> None:
    """Its secret is for its own user and root alone, and it is not what root has on disk."""
    service.machine.write("/etc/credstore/scaler-webhook", whsec(), 0o600)
    service.start(FAKE_DRIVER, config=BRISK + REQUESTS)
    path = f"/run/credentials/{UNIT}/scaler-webhook"
    user = service.machine.sh(f"stat --format=%u {path}").strip()
    read = "setpriv --reuid={} --clear-groups --regid=65534 cat {}"
    assert service.machine.sh(read.format(user, path)) == whsec()
    assert service.machine.sh(f"stat --format=%u /proc/{service.show('MainPID')}").strip() == user
    for stranger, secret in (("65534", path), (user, "/etc/credstore/scaler-webhook")):
        done = service.machine.run("sh", "-c", read.format(stranger, secret), check=False)
        assert "Permission denied" in done.stderr


def test_web_config_is_handed_over(service: Service, tmp_path: Path) -> None:
    """As docs/security.md says: certificate, key and users by credentials, under the sandbox."""
    files = WebFiles(tmp_path)
    files.write(TLS + users(alice="secret"))
    folder = "/etc/gpu-node-exporter/tls"
    names = ("web.yml", "server.pem", "server.key")
    for name in (*names, "ca.pem"):
        service.machine.write(f"{folder}/{name}", (tmp_path / name).read_text(), 0o600)
    default = "/etc/default/gpu-node-exporter"
    service.machine.write("/opt/default", service.machine.sh(f"cat {default}"))
    flag = f"--web.config.file=/run/credentials/{UNIT}/web.yml"
    service.machine.write(default, f'ARGS="{flag}"\n')
    try:
        service.start(FAKE_DRIVER, *(f"LoadCredential={name}:{folder}/{name}" for name in names))
        asked = service.machine.run("/usr/bin/python3", "-c", ASK, f"{folder}/ca.pem").stdout
    finally:
        service.machine.sh(f"cat /opt/default > {default}")
    assert asked.split() == ["401", "200", "401"]
    assert "listening on https://" in service.journal()
    assert "open to every user" not in service.journal()


def test_a_device_that_is_none_of_its_business_is_refused(service: Service) -> None:
    """NVIDIA's devices may be opened, even where no driver was there at the start; others not."""
    nodes = {"/dev/nvidiactl": (195, 255), "/dev/nvidia3": (195, 3), "/dev/other": (10, 229)}
    for path, (major, minor) in nodes.items():
        service.machine.sh(f"test -e {path} || mknod -m 666 {path} c {major} {minor}")
    opener = "python3 /opt/open.py {} " + " ".join(nodes)
    service.machine.sh(opener.format("/opt/outside"))
    outside = dict(line.split() for line in service.machine.sh("cat /opt/outside").splitlines())
    assert "EPERM" not in outside.values()  # what is refused below is refused by the unit
    probe = f"ExecStartPost=/bin/sh -c '{opener.format('$STATE_DIRECTORY/opened')}'"
    service.start(FAKE_DRIVER, probe)
    opened = service.machine.sh("cat /var/lib/gpu-node-exporter/opened").splitlines()
    assert dict(line.split() for line in opened) == {**outside, "/dev/other": "EPERM"}


def test_the_journal_has_fields(service: Service) -> None:
    """A GPU's fault is found in the journal by its index and by the fault."""
    service.start(FAKE_DRIVER)
    service.machine.write("/opt/scenario", "profile=h100x8\ngpu2.lost=1\n")
    until_property(service, "StatusText", "GPU 2 lost")
    line = service.machine.until(
        f"journalctl --unit={UNIT} GPU=2 FAULT=lost --output=json | grep ."
    )
    entry = json.loads(line)
    assert entry["MESSAGE"] == f"GPU 2 ({entry['UUID']}) gives no readings: lost"
    assert entry["UUID"].startswith("GPU-")
    assert (entry["PRIORITY"], entry["SOURCE"]) == ("3", "ledger")


# Socket activation


def test_systemd_may_hold_the_port(service: Service) -> None:
    """A first scrape starts the service, and one while it restarts waits instead of failing."""
    service.start(FAKE_DRIVER)
    service.machine.run("systemctl", "stop", UNIT)
    service.machine.run("systemctl", "start", "gpu-node-exporter.socket")
    assert service.show("ActiveState") == "inactive"
    assert service.get("/-/healthy") == "healthy\n"
    assert service.get("/-/ready") == "ready\n"
    listening = service.machine.sh("ss --listening --tcp --numeric --processes | grep :9836")
    assert "systemd" in listening
    service.machine.run("systemctl", "kill", "--signal=KILL", "--kill-who=main", UNIT)
    assert service.get("/-/healthy") == "healthy\n"
    assert service.show("NRestarts") == "1"
    service.machine.run("systemctl", "stop", "gpu-node-exporter.socket", UNIT)


def whsec() -> str:
    """Return the secret as a file holds it."""
    return "whsec_" + base64.b64encode(SECRET).decode()
