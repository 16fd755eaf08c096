"""From a command to its reply: one table, one gate, one place where exceptions become statuses."""

import logging
from collections.abc import Callable, Generator
from time import perf_counter
from types import CoroutineType
from typing import Any, final

from msgspec import Struct

from ..protocol.commands import COMMANDS
from ..protocol.errors import Refused, Status
from ..protocol.model import groups, messages, offsets, partitions, streams, system, tokens, topics, users
from ..protocol.needs import Need
from ..storage.errors import Corrupt, Full, OffsetGone, Poisoned, UnknownKey
from .counters import Timing
from .gate import allows
from .services import consumers as consumers_service
from .services import groups as groups_service
from .services import logins as logins_service
from .services import messages as messages_service
from .services import partitions as partitions_service
from .services import routing as routing_service
from .services import snapshot as snapshot_service
from .services import streams as streams_service
from .services import system as system_service
from .services import tokens as tokens_service
from .services import topics as topics_service
from .services import users as users_service
from .session import Session
from .state import State

log = logging.getLogger(__name__)

# What needs no wait is answered where it is called; a coroutine gives the reply of what does.
Service = Callable[[State, Session, Any], "Struct | CoroutineType[Any, Any, Struct | None] | None"]

SERVICES: dict[type[Struct], Service] = {
    system.Ping: system_service.ping,
    system.GetStats: system_service.stats,
    system.GetClusterMetadata: system_service.cluster_metadata,
    system.GetSnapshot: snapshot_service.take,
    system.DescribeOptions: system_service.describe_options,
    system.AttachConsumerSession: routing_service.attach,
    system.GetMe: system_service.me,
    system.GetClient: system_service.client,
    system.GetClients: system_service.clients,
    users.GetUser: users_service.get,
    users.GetUsers: users_service.get_all,
    users.CreateUser: users_service.create,
    users.DeleteUser: users_service.delete,
    users.UpdateUser: users_service.update,
    users.UpdatePermissions: users_service.update_permissions,
    users.ChangePassword: users_service.change_password,
    users.Login: logins_service.login,
    users.Logout: logins_service.logout,
    tokens.LoginWithToken: logins_service.login_with_token,
    tokens.GetTokens: tokens_service.get_all,
    tokens.CreateToken: tokens_service.create,
    tokens.DeleteToken: tokens_service.delete,
    messages.PollMessages: messages_service.poll,
    messages.PollMessagesOnPrimary: messages_service.poll,
    messages.GetPollRouting: routing_service.route,
    messages.SendMessages: messages_service.send,
    offsets.GetConsumerOffset: consumers_service.get,
    offsets.GetConsumerOffsetRouting: routing_service.route,
    offsets.StoreConsumerOffset: consumers_service.store,
    offsets.DeleteConsumerOffset: consumers_service.delete,
    streams.GetStream: streams_service.get,
    streams.GetStreams: streams_service.get_all,
    streams.CreateStream: streams_service.create,
    streams.DeleteStream: streams_service.delete,
    streams.UpdateStream: streams_service.update,
    streams.PurgeStream: streams_service.purge,
    topics.GetTopic: topics_service.get,
    topics.GetTopics: topics_service.get_all,
    topics.CreateTopic: topics_service.create,
    topics.DeleteTopic: topics_service.delete,
    topics.UpdateTopic: topics_service.update,
    topics.PurgeTopic: topics_service.purge,
    partitions.CreatePartitions: partitions_service.create,
    partitions.DeletePartitions: partitions_service.delete,
    partitions.DeleteSegments: partitions_service.delete_segments,
    messages.FlushUnsavedBuffer: partitions_service.flush,
    groups.GetConsumerGroup: groups_service.get,
    groups.GetConsumerGroups: groups_service.get_all,
    groups.CreateConsumerGroup: groups_service.create,
    groups.DeleteConsumerGroup: groups_service.delete,
    groups.JoinConsumerGroup: groups_service.join,
    groups.LeaveConsumerGroup: groups_service.leave,
    groups.SyncConsumerGroup: groups_service.sync,
}

# A command without its service fails here, at import.
_ROUTES = {row.request: (row.need, SERVICES[row.request]) for row in COMMANDS}

_STORAGE_STATUSES: dict[type[Exception], Status] = {
    Full: Status.CANNOT_APPEND_TO_FILE,
    Poisoned: Status.CANNOT_SAVE_MESSAGES_TO_SEGMENT,
    Corrupt: Status.CANNOT_READ_MESSAGE,
    OffsetGone: Status.INVALID_OFFSET,
    UnknownKey: Status.CANNOT_DECRYPT_DATA,
    OSError: Status.ERROR,
}


def _refused(error: Exception, kind: type[Struct], session: Session) -> Refused:
    """Return what a client is told of an error, which goes to the log."""
    for known, status in _STORAGE_STATUSES.items():
        if isinstance(error, known):
            log.error("%s from %s failed: %s", kind.__name__, session.address, error)
            return Refused(status, str(error))
    log.error("%s from %s failed; this is a bug in pybroker", kind.__name__, session.address, exc_info=error)
    return Refused(Status.ERROR, str(error))


@final
class Serving:
    """What is left of a command that waits. Await it for the reply, or close it."""

    __slots__ = ("_coroutines",)

    def __init__(self, *coroutines: "CoroutineType[Any, Any, Struct | None]") -> None:
        """The first gives the reply; it may await the others, which would not be closed with it before it begins."""
        self._coroutines = coroutines

    def __await__(self) -> Generator[Any, Any, Struct | None]:
        return self._coroutines[0].__await__()

    def close(self) -> None:
        for coroutine in self._coroutines:
            coroutine.close()


class Dispatch:
    """Answer commands. Raises Refused, and nothing else but cancellation."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._catalog = state.catalog
        self._grants = state.catalog.grants
        timings = state.counters.requests
        self._routes = {kind: (*route, timings[kind]) for kind, route in _ROUTES.items()}

    async def __call__(self, session: Session, command: Struct) -> Struct | None:
        begun = self.begin(session, command)
        return await begun if type(begun) is Serving else begun

    def begin(self, session: Session, command: Struct) -> Struct | Serving | None:
        """Return the reply to a command, or what is left to do where that takes a wait."""
        kind = type(command)
        need, service, timings = self._routes[kind]
        timing = timings[session.transport]
        started = perf_counter()
        session.is_heard = True
        try:
            if not session.epoch or session.is_stale or need not in self._grants(session.user_id).everywhere:
                self._admit(session, need, command)
            reply = service(self._state, session, command)
        except Refused:
            timing.failed(perf_counter() - started)
            raise
        except Exception as error:
            timing.failed(perf_counter() - started)
            raise _refused(error, kind, session) from error
        if type(reply) is CoroutineType:
            return Serving(self._finish(reply, timing, started, kind, session), reply)
        timing.note(perf_counter() - started)
        return reply

    async def _finish(
        self,
        rest: "CoroutineType[Any, Any, Struct | None]",
        timing: Timing,
        started: float,
        kind: type[Struct],
        session: Session,
    ) -> Struct | None:
        try:
            return await rest
        except Refused:
            timing.failures += 1
            raise
        except Exception as error:
            timing.failures += 1
            raise _refused(error, kind, session) from error
        finally:
            timing.note(perf_counter() - started)

    def _admit(self, session: Session, need: Need, command: Struct) -> None:
        """Raise Refused for who is not signed in, was silent for too long or may not do that."""
        if need is Need.NOTHING:
            return
        if not session.epoch:
            raise Refused(Status.UNAUTHENTICATED)
        if session.is_stale:
            raise Refused(Status.STALE_CLIENT)
        if not allows(self._catalog, session.user_id, need, command):
            raise Refused(Status.UNAUTHORIZED, need.name)

    def sending(self, size: int) -> None:
        """Take note of bytes of answers that are on their way, or, less than 0, that were taken."""
        self._state.counters.unsent_bytes += size

    def disconnected(self, session: Session) -> None:
        """Forget a session: its group memberships go with it."""
        self._state.groups.leave_all(session.client_id)
        self._state.clients.disconnect(session)
