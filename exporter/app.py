"""Wiring: every object, every scheduler job, every thread, signals, and the order of shutdown."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import ProcessCollector

from exporter import nvml_pause
from exporter.config import Config, ConfigError
from exporter.doors import Doors
from exporter.exposition import Rendered
from exporter.httpd import Server, adopt, parse_address
from exporter.inference import Inference
from exporter.once import sources
from exporter.options import Options, load, plans, switched_off
from exporter.pipeline import Pipeline
from exporter.poll import Poller
from exporter.recorder.flight import Recorder, settings
from exporter.rules import Engine
from exporter.sampling import Driver, DriverGoneError
from exporter.scaleout.clock import system_clock
from exporter.scaleout.service import Scaleout
from exporter.snapshot import Process, Reload
from exporter.statuspage import Past, StatusPage
from exporter.supervision import Supervision
from exporter.threads import EXHAUSTED, NoThreadError, on_exhaustion, share_heap
from exporter.ticking import LOOK_SECONDS, Ticking
from exporter.web import Web
from exporter.xid import Journal, Kmsg, Monitor, Opener, Store

if TYPE_CHECKING:
    from exporter.webconfig import Entrance  # only a web config needs it

log = logging.getLogger(__name__)

LAST_TICK_SECONDS = 1.0  # for the tick under way at the end; one that hangs is left behind
DEV_KMSG = Path("/dev/kmsg")


class Daemon:
    """The running exporter."""

    def __init__(self, options: Options) -> None:
        """Load the config and wire everything up; nothing runs yet.

        Raises:
            ConfigError: the config file is bad, or the web config file.
            ListenError: a socket that systemd has handed over is of no use.
        """
        self._options = options
        self._entrance = self._web_config()
        self._is_config_good = True
        config = load(self._options)
        plan, groups = plans(self._options, config)
        self._fast_seconds = plan.fast_seconds
        node, clock = socket.gethostname(), system_clock()
        self._recorder = Recorder(options.storage_path, settings(config), node)
        self._adopted = [adopt(descriptor) for descriptor in options.listen_descriptors]
        page_url = f"{self._scheme}://{node}:{self._port()}/"
        self._scaleout = Scaleout(config, options.storage_path, node, page_url, clock)
        self._engine = Engine(
            config.rules,
            config.scale_groups,
            config.external_labels,
            plan.fast_seconds,
            self._scaleout.restored,
        )
        paused = nvml_pause.orders(options.storage_path, clock)
        found = sources(options.simulate, process_reader(), options.simulated_xids, paused)
        self._xids = _xid_monitor(options, found.driver, clock.boot)
        self._xids.switch(on="xid" not in switched_off(self._options, config))
        self._poller = Poller(
            found,
            plan,
            groups,
            Reload(successful=True, success_timestamp_seconds=time.time()),
        )
        self._past = Past(plan.fast_seconds)
        self._inference = Inference()
        self._inference.configure(config.inference_servers)
        self._pipeline = Pipeline(
            self._poller,
            self._engine,
            self._recorder,
            self._scaleout,
            self._xids,
            self._past,
            self._inference.view,
        )
        more = _more_pages(options, node)
        self._web = Web(
            lambda: self._pipeline.latest,
            self.reload,
            options.telemetry_path,
            StatusPage(node, options.telemetry_path, self._past, more),
            more=more,
        )
        self._doors = Doors(self._recorder, self._scaleout, clock)
        self._supervision = Supervision(lambda: self._pipeline.latest)
        self._server = Server([*self._web.routes(), *self._doors.open(config)], gate=self._entrance)
        self._ticking = Ticking(partial(self._do, self._pipeline.tick))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._exit_code = 0

    async def run(self) -> int:
        """Serve until a signal or the loss of the driver; return the exit code.

        Raises:
            ListenError: an address cannot be listened on.
        """
        self._loop = loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_fault)
        share_heap()
        on_exhaustion(partial(self._end, EXHAUSTED))
        bound = await self._server.start(self._options.listen_addresses, adopted=self._adopted)
        handlers: dict[signal.Signals, Callable[[], object]] = {
            signal.SIGTERM: self._stopped.set,
            signal.SIGINT: self._stopped.set,
            signal.SIGHUP: self.reload,
        }
        for name, handler in handlers.items():
            loop.add_signal_handler(name, handler)
        self._ticking.every(self._fast_seconds)
        self._ticking.start()
        for address, port in bound:
            where = f"[{address}]" if ":" in address else address
            path = self._options.telemetry_path
            log.info("listening on %s://%s:%d%s", self._scheme, where, port, path)
        guard = loop.create_task(self._guard())
        supervision = loop.create_task(self._supervision.run())
        await self._stopped.wait()
        log.info("stopping")
        for name in handlers:  # one more neither kills us at the very end nor reloads
            loop.remove_signal_handler(name)
            signal.signal(name, signal.SIG_IGN)
        supervision.cancel()
        self._supervision.stopping()
        guard.cancel()
        await self._server.stop()
        self._ticking.stop(LAST_TICK_SECONDS)
        self._xids.stop()
        self._inference.stop()
        self._recorder.close()
        self._scaleout.stop()
        return self._exit_code

    def reload(self) -> str | None:
        """Load the config files again; keep the old ones if one is bad. Return what is wrong."""
        with self._supervision.reloading():
            return self._reload()

    def _reload(self) -> str | None:
        mistakes = () if self._entrance is None else self._entrance.reload()
        config = None
        try:
            config = load(self._options)
        except ConfigError as bad:
            mistakes = (*bad.mistakes, *mistakes)
        self._is_config_good = not mistakes
        self._note_reload(are_good=not mistakes)
        if config is None or mistakes:
            for mistake in mistakes:
                log.error("config not reloaded: %s", mistake)
            return "\n".join(mistakes)
        self._ticking.between(partial(self._do, partial(self._apply, config)))
        self._ticking.every(config.poll.fast_seconds)
        self._doors.reload(config)
        log.info("config reloaded")
        return None

    def _note_reload(self, *, are_good: bool) -> None:
        last = self._poller.reload.success_timestamp_seconds
        self._poller.reload = Reload(are_good, time.time() if are_good else last)

    def _apply(self, config: Config) -> None:
        plan, groups = plans(self._options, config)
        self._poller.replan(plan, groups)
        self._xids.switch(on="xid" not in switched_off(self._options, config))
        self._recorder.configure(settings(config))
        self._inference.configure(config.inference_servers)
        self._past.configure(plan.fast_seconds)
        self._pipeline.tell(
            self._engine.replace(
                config.rules, config.scale_groups, config.external_labels, plan.fast_seconds
            )
        )
        self._scaleout.reload(config)

    def _do(self, work: Callable[[], None]) -> None:
        """Do a tick, or what is between two; end the process where only a new one can go on."""
        try:
            work()
        except DriverGoneError as gone:
            self._end(f"the driver is gone ({gone.error}); only a new process can load another")
        except (MemoryError, NoThreadError):
            self._end(EXHAUSTED)

    def _on_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take what a callback of the event loop has raised."""
        if isinstance(context.get("exception"), MemoryError):
            self._end(EXHAUSTED)
        else:
            loop.default_exception_handler(context)

    def _end(self, why: str) -> None:
        if self._exit_code == 0:
            log.error(why)
        self._exit_code = 1
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopped.set)

    async def _guard(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._ticking.is_alive:
                return self._end("the poller's thread has died; only a new process can go on")
            self._ticking.look()

    def _port(self) -> int:
        """Return the port of our first address."""
        if self._adopted:
            port: int = self._adopted[0].getsockname()[1]
            return port
        return parse_address(self._options.listen_addresses[0]).port

    def _web_config(self) -> Entrance | None:
        path = self._options.web_config_file
        if path is None:
            return None
        from exporter.webconfig import Entrance  # noqa: PLC0415  only a web config needs it

        return Entrance(
            path, lambda is_good: self._note_reload(are_good=is_good and self._is_config_good)
        )

    @property
    def _scheme(self) -> str:
        return "https" if self._entrance is not None and self._entrance.speaks_tls else "http"


def _more_pages(options: Options, node: str) -> dict[str, Rendered]:
    """Return the pages beside the main one, by path."""
    if options.dcgm_path is None:
        return {}
    from exporter.dcgm import DcgmPage  # noqa: PLC0415  only --compat.dcgm needs it

    return {options.dcgm_path: DcgmPage(node)}


def _xid_monitor(options: Options, driver: Driver, boot: str) -> Monitor:
    """Return what counts XID errors; those of a simulated node are not of this machine's log."""
    if options.kmsg_path is not None:
        openers: tuple[Opener, ...] = (partial(Kmsg, options.kmsg_path),)
    else:
        openers = () if options.simulate else (partial(Kmsg, DEV_KMSG), Journal)
    store = None if options.simulate else Store(options.storage_path, boot)
    return Monitor(driver, openers, store)


def process_reader() -> Callable[[], Process | None]:
    """Return what reads this process's CPU, memory and files, by prometheus_client."""
    collector = ProcessCollector(registry=None)

    def read() -> Process | None:
        values = {s.name: s.value for family in collector.collect() for s in family.samples}
        return Process(values) if values else None

    return read
