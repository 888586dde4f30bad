"""The faults: each a text of the library that becomes another one, and the tests that should notice."""

from __future__ import annotations

from typing import Final, NamedTuple


class Fault(NamedTuple):
    """One fault.

    Attributes:
        name: what goes wrong for a user.
        file: of the library.
        text: stands in it exactly once.
        becomes: what is planted for it.
        tests: files below tests/, of which one test at least must fail.
    """

    name: str
    file: str
    text: str
    becomes: str
    tests: tuple[str, ...]


FAULTS: Final = (
    # ---- the log writer ----
    Fault(
        "a failed write's events are dropped",
        "reply/log_writer.py",
        "        if self._sending is None:\n            self._sending = self._take()",
        "        if True:\n            self._sending = self._take()",
        ("test_stream.py", "test_append_model.py", "test_log_machine.py"),
    ),
    Fault(
        "a retry has another nonce, and takes its own segment for somebody else's",
        "reply/log_writer.py",
        "nonce=self._sending_nonce)\n        events,",
        "nonce=self._random_bytes(8))\n        events,",
        ("test_stream.py", "test_log_machine.py"),
    ),
    Fault(
        "a segment's number is skipped",
        "reply/log_writer.py",
        "self._number = number + 1",
        "self._number = number + 2",
        ("test_stream.py", "test_store.py"),
    ),
    Fault(
        "a large buffer waits for the interval",
        "reply/log_writer.py",
        "if self._buffered >= SEGMENT_BYTES:",
        "if False:",
        ("test_stream.py", "test_write_units.py"),
    ),
    Fault(
        "a silent writer shows no sign of life",
        "reply/log_writer.py",
        "            self._last_flush = now\n            self._start_write()",
        "            self._last_flush = now",
        ("test_open_replies.py",),
    ),
    Fault(
        "the end leaves out what is buffered",
        "reply/log_writer.py",
        "events = [*self._buffer, end]",
        "events = [end]",
        ("test_stream.py",),
    ),
    Fault(
        "a segment may be larger than an item",
        "reply/log_writer.py",
        "        if self._buffered <= LARGEST_SEGMENT:\n",
        "        if True:\n",
        ("test_stream.py", "test_store.py"),
    ),
    # ---- the store ----
    Fault(
        "an append overwrites what is there",
        "store/log.py",
        "            await self._table.put(item, **options)\n",
        "            await self._table.put(item)\n",
        ("test_store.py",),
    ),
    Fault(
        "a write whose answer was lost is taken for a conflict",
        "store/log.py",
        "            if not _is_ours(error.item, nonce):\n",
        "            if True:\n",
        ("test_store.py", "test_stream.py"),
    ),
    Fault(
        "an end overwrites an end",
        "store/log.py",
        'condition=MessageItem.status == "pending")',
        "condition=MessageItem.status.exists())",
        ("test_store.py",),
    ),
    Fault(
        "a reader goes on behind a gap",
        "store/log.py",
        "if number != after + 1 or is_expired",
        "if is_expired",
        ("test_store.py", "test_follow.py"),
    ),
    Fault(
        "an expired segment is read",
        "store/log.py",
        " or is_expired(item, self._clock.now())",
        "",
        ("test_store.py", "test_open_replies.py"),
    ),
    Fault(
        "a reply that ended is looked at by each sweep",
        "store/log.py",
        '() if feeding else ("sweep", "feeding")',
        "()",
        ("test_store.py", "test_open_replies.py"),
    ),
    Fault(
        "a start that was posted again starts twice",
        "store/messages.py",
        "    raise AlreadyStarted(holder",
        "    return  # AlreadyStarted(holder",
        ("test_store.py", "http/test_resume.py"),
    ),
    Fault(
        "what cannot be ended is taken",
        "store/messages.py",
        "    if stored > limit:",
        "    if False:",
        ("test_item_sizes.py",),
    ),
    # ---- the stream and its end ----
    Fault(
        "what a reset voids stays in the text",
        "reply/totals.py",
        "            self._void()\n",
        "            pass\n",
        ("test_totals.py",),
    ),
    Fault(
        "an empty chunk is an event",
        "reply/stream.py",
        "                if text := event.text:\n",
        "                text = event.text\n                if True:\n",
        ("test_stream.py",),
    ),
    Fault(
        "something can be appended after the end, or after one that could not be stored",
        "reply/log_writer.py",
        "        if self._closed:  # also",
        "        if False:  # also",
        ("test_stream.py",),
    ),
    Fault(
        "an end may grow beyond its item",
        "reply/ending.py",
        "return text if text is None else text[:length]",
        "return text",
        ("test_item_sizes.py",),
    ),
    # ---- ending from outside ----
    Fault(
        "the sweep ends those whose writer lives",
        "reply/open_replies.py",
        "return self._clock.now() - sign >= silence * 1_000_000",
        "return True",
        ("test_open_replies.py",),
    ),
    Fault(
        "a cancel gives up when the writer was quicker",
        "reply/open_replies.py",
        "                continue\n            return True",
        "                return False\n            return True",
        ("test_open_replies.py",),
    ),
    Fault(
        "an expired log keeps a reply open for ever",
        "reply/open_replies.py",
        "if conflicts and newest is None",
        "if False and newest is None",
        ("test_open_replies.py",),
    ),
    Fault(
        "one reply that cannot be ended keeps all others waiting",
        "reply/open_replies.py",
        "            except TailraceError as error:  # one",
        "            except KeyError as error:  # one",
        ("test_open_replies.py",),
    ),
    Fault(
        "the sweep never looks into a shard",
        "store/messages.py",
        "for shard in range(OPEN_SHARDS)]",
        "for shard in range(1, OPEN_SHARDS)]",
        ("test_open_replies.py",),
    ),
    Fault(
        "what was deleted lately is pruned",
        "store/prune.py",
        'if "deleted" in item and int(item["deleted"]["N"]) < deleted_before:',
        "if True:",
        ("test_prune.py",),
    ),
    Fault(
        "a throttled write is tried too seldom",
        "store/dynamodb.py",
        "LONGEST_PAUSE = 0.25",
        "LONGEST_PAUSE = 1.0",
        ("test_dynamodb.py",),
    ),
    # ---- following ----
    Fault(
        "a reader gets its last event again",
        "reply/follow.py",
        "skip = max(0, self._after + 1 - segment.first_seq)",
        "skip = max(0, self._after - segment.first_seq)",
        ("test_follow.py", "http/test_resume.py"),
    ),
    Fault(
        "what is left of a page is lost",
        "reply/follow.py",
        "                self._kept.append((first_seq + left, events[left:]))",
        "                pass",
        ("http/test_sizes.py",),
    ),
    Fault(
        "a follower waits for the sweep",
        "reply/follow.py",
        "            await self._open_replies.interrupt(self._id)",
        "            pass",
        ("test_follow.py", "http/test_resume.py"),
    ),
    # ---- the relay and the connection ----
    Fault(
        "a cancelled request leaves its reply open",
        "reply/relay.py",
        "            await stream.end(INTERRUPTED)\n            raise",
        "            raise",
        ("test_relay.py",),
    ),
    Fault(
        "a reply that was stopped elsewhere goes on until its provider ends",
        "reply/relay.py",
        "                stream.when_lost(self._break)\n",
        "",
        ("test_relay.py",),
    ),
    Fault(
        "a slow reader loses what it did not read in time",
        "http/live.py",
        "self._catch_up(reader, connection, first_seq + place - 1)",
        "self._catch_up(reader, connection, first_seq + place + 99)",
        ("http/test_sizes.py",),
    ),
    # ---- subscribers ----
    Fault(
        "subscribers are told of an end before its chunks",
        "broadcast/feed.py",
        "                if is_last:\n                    await self._subscribers.drain()",
        "                if False:\n                    await self._subscribers.drain()",
        ("broadcast/test_feed.py",),
    ),
    Fault(
        "who is left out hears it all the same",
        "broadcast/feed.py",
        "                if subscription.socket != self._except_socket\n",
        "",
        ("broadcast/test_feed.py", "broadcast/test_reply.py"),
    ),
    Fault(
        "who comes between two looks misses what was stored since the first",
        "broadcast/subscribers.py",
        "                after = max(first - 1, self._known)",
        "                after = max(first - 1, self.given)",
        ("broadcast/test_feed.py",),
    ),
    Fault(
        "who comes while the last chunks for some time are given is found when there are more",
        "broadcast/feed.py",
        "self._clock.call_later(due - now, self._fire)",
        "self._clock.call_later(due - now + 3600, self._fire)",
        ("broadcast/test_feed.py",),
    ),
    Fault(
        "who has come since the last look is handed over without what was given meanwhile",
        "broadcast/subscribers.py",
        "        return self._known + 1, dict.fromkeys",
        "        return self.given + 1, dict.fromkeys",
        ("broadcast/test_feed.py",),
    ),
    Fault(
        "a subscriber misses the segment after its catch-up",
        "broadcast/catch_up.py",
        "self.id, self._number + 1)",
        "self.id, self._number + 2)",
        ("broadcast/test_catch_up.py",),
    ),
    Fault(
        "a catch-up tells what the subscriber has",
        "broadcast/chunk_frames.py",
        "max(self._had + 1 - first_seq, 0)",
        "max(self._had - first_seq, 0)",
        ("broadcast/test_catch_up.py",),
    ),
    Fault(
        "a socket is posted to twice at once",
        "broadcast/subscribers.py",
        "if subscriber.socket in self._posts or not subscriber",
        "if not subscriber",
        ("broadcast/test_feed.py",),
    ),
    Fault(
        "who is far behind misses what the queue has dropped",
        "broadcast/segment_queue.py",
        "                        return page[-1].number, page",
        "                        return dropped, page",
        ("broadcast/test_feed.py", "broadcast/test_delivery.py"),
    ),
    Fault(
        "who comes late hears other sentences than everybody else",
        "broadcast/subscribers.py",
        "        async for segment in self._queue.before(first.number):",
        "        async for segment in self._queue.before(0):",
        ("broadcast/test_delivery.py",),
    ),
    Fault(
        "who is refused while an account makes too many posts misses them",
        "broadcast/fan_out.py",
        "longer = waited >= self._patience and self._refusals.are_the_service_s",
        "longer = False",
        ("broadcast/test_refusals.py",),
    ),
    Fault(
        "who does not read has the patience that the service has",
        "broadcast/refusals.py",
        '0 < counted["refused"] <= FEW * counted["recovered"]',
        '0 < counted["refused"]',
        ("broadcast/test_refusals.py",),
    ),
    Fault(
        "who is refused is posted to as often as ever",
        "broadcast/subscribers.py",
        "self.gap = 0.0 if gap < SHORTEST_PAUSE else gap",
        "self.gap = 0.0",
        ("broadcast/test_refusals.py",),
    ),
    Fault(
        "who did not get a batch never gets it",
        "broadcast/feed.py",
        "            behind=places,\n",
        "",
        ("broadcast/test_feed.py",),
    ),
    Fault(
        "a batch that no environment is free for is lost",
        "aws/invoke.py",
        "        if status == 429:\n            raise NotCalled(",
        "        if status == 429:\n            raise InvokeError(",
        ("test_invoke.py",),
    ),
    # ---- chats over WebSocket ----
    Fault(
        "a call that Lambda makes twice is answered twice",
        "store/chat_requests.py",
        "            await self._table.put(item, **expressions(condition=_NOT_THERE | mine))",
        "            await self._table.put(item)",
        ("broadcast/test_chats.py", "http/test_chat_socket.py"),
    ),
    Fault(
        "who stops an answer before it is known which, stops nothing",
        "http/chat_socket.py",
        "                await self._backend.open_replies.cancel(reply)",
        "                pass",
        ("http/test_chat_socket.py",),
    ),
    Fault(
        "a client says whose chat it is",
        "broadcast/chats.py",
        "caller = Caller(owner=ANYBODY) if self._open_to_all else await self._store.sockets.caller(socket)",
        "caller = Caller(owner=ANYBODY if self._open_to_all else msgspec.json.decode(body).get('owner'))",
        ("broadcast/test_chats.py",),
    ),
    Fault(
        "a socket that is gone gets the rest of an answer",
        "http/chat_socket.py",
        "            self.is_behind = True\n            self._gone.set()",
        "            self.is_behind = True",
        ("http/test_chat_socket.py",),
    ),
    Fault(
        "pieces of two texts are joined to one",
        "protocols/ai_sdk_frames.py",
        'is_same = first["type"] == second["type"] and first[whose] == second[whose]',
        'is_same = first["type"] == second["type"]',
        ("test_ai_sdk_frames.py",),
    ),
    # ---- steps ----
    Fault(
        "a tool is called before it is known that it will be",
        "reply/steps.py",
        "            await self._stored()\n",
        "",
        ("test_steps.py",),
    ),
    Fault(
        "a call of which nobody knows is made again",
        "reply/steps.py",
        "if call.id in pending.unknown and not tool.repeatable:",
        "if False:",
        ("test_steps.py",),
    ),
    Fault(
        "a tool that asks first does not",
        "reply/steps.py",
        "and tool.needs_approval(call):",
        "and False:",
        ("test_steps.py", "http/test_steps.py"),
    ),
    Fault(
        "a no is taken for a yes",
        "reply/steps.py",
        "elif decision is not None and not decision.approved:",
        "elif False:",
        ("test_steps.py", "http/test_steps.py"),
    ),
    Fault(
        "two go on with one reply",
        "store/messages.py",
        "MessageItem.completed.exists() & MessageItem.continued.does_not_exist()",
        "MessageItem.completed.exists()",
        ("http/test_steps.py",),
    ),
    Fault(
        "what an earlier reply's tools returned is not asked for, and made again",
        "conversation/going_on.py",
        "return [call for call in last.calls if call.id not in answered], begun",
        "return [*last.calls], begun",
        ("test_steps.py",),
    ),
    Fault(
        "a reply that broke off before it made a call forgets those of the one before",
        "conversation/going_on.py",
        "        message, steps = await store.messages.with_steps(earlier)",
        "        break",
        ("test_steps.py",),
    ),
    Fault(
        "a reply that is gone on with is in no prompt",
        "store/history.py",
        'or "continued" in item)',
        "or False)",
        ("test_steps.py", "http/test_steps.py"),
    ),
    Fault(
        "the tokens of the last step are those of the reply",
        "reply/totals.py",
        "return _sum([*self._usages, *([self._usage] if self._usage is not None else [])])",
        "return self._usage",
        ("http/test_steps.py",),
    ),
    # ---- who may ----
    Fault(
        "an unexpected error is logged with its text",
        "http/mask_errors.py",
        'logger.error("request failed", extra=where(error))',
        'logger.error("request failed", extra={"reason": str(error), **where(error)})',
        ("http/test_canaries.py",),
    ),
    # ---- the hot path: what is right and dear ----
    Fault(
        "each chunk of a read is sent on its own",
        "reply/relay.py",
        "self._deliver(first_seq, logged)",
        "[self._deliver(first_seq + place, [each]) for place, each in enumerate(logged)]",
        ("test_hot_path.py",),
    ),
    Fault(
        "the path of each post is encoded anew",
        "aws/signing.py",
        "uri = _encoded(path)",
        "uri = _encoded.__wrapped__(path)",
        ("test_hot_path.py",),
    ),
    Fault(
        "an idle reply is written as often as one that somebody reads along",
        "reply/log_writer.py",
        "return READ_ALONG if now < self._followed_until else ALONE",
        "return READ_ALONG",
        ("test_flush_pace.py",),
    ),
    Fault(
        "what is left of a burst is read before anybody else has a turn",
        "providers/lean_reader.py",
        "            await asyncio.sleep(0)  # what",
        "            pass  # what",
        ("providers/test_lean_reader.py",),
    ),
    Fault(
        "an answer that nobody waits for any more is the next call's",
        "aws/exchange.py",
        "            except BaseException:\n                connection.close()\n                raise",
        "            except BaseException:\n                self._give_back(connection)\n                raise",
        ("test_exchange.py",),
    ),
    Fault(
        "a process that is late takes every start",
        "reply/load.py",
        "if self._late > LATE or",
        "if",
        ("test_load.py",),
    ),
    Fault(
        "a grant opens another conversation of its owner",
        "identity/grants.py",
        "if conversation_tag(named) != conversation_tag(grant.conversation):",
        "if False:",
        ("http/test_grants.py",),
    ),
    Fault(
        "a grant for reading starts replies",
        "identity/grants.py",
        'if (needed == "write" or (starts and kind == "conversations")) and grant.right != "write":',
        'if needed == "write" and grant.right != "write":',
        ("http/test_grants.py",),
    ),
    Fault(
        "who subscribes while a grant is revoked goes on to listen",
        "broadcast/socket.py",
        "await self._grants.get(grant.conversation, grant.id) is None:",
        "False:",
        ("broadcast/test_socket.py",),
    ),
    Fault(
        "one more connection than may be is let in where two come at once",
        "store/identities.py",
        "known = IdentityItem.version == version if version else IdentityItem.pk.does_not_exist()",
        "known = IdentityItem.pk.exists() | IdentityItem.pk.does_not_exist()",
        ("broadcast/test_allowance.py",),
    ),
    Fault(
        "a key checks any algorithm",
        "identity/jwt/issuer.py",
        "if header.algorithm not in key.algorithms:",
        "if False:",
        ("test_jwt.py",),
    ),
    Fault(
        "a snapshot holds a connection, dead in all that is restored from it",
        "backend.py",
        "if self.settings.in_snapshot:",
        "if False:",
        ("test_snapshot.py",),
    ),
)
