"""A subscription that follows its publisher: its reliability, its transport, its re-creation.

A best-effort subscriber accepts every publisher but loses most raw images; a reliable one receives nothing from a
best-effort publisher.  So the reliability is that of the publishers, looked up and watched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

DEPTH = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to subscribe."""

    topic: str  # resolved
    type_name: str  # "sensor_msgs/msg/Image"
    reliable: bool


@dataclass(frozen=True, slots=True)
class Offer:
    """One publisher as discovery shows it."""

    topic: str
    type_name: str
    reliable: bool
    node: str


def choose(wanted: Sequence[tuple[str, str]], offers: Sequence[Offer], qos: str, current: Choice) -> Choice:
    """Pick what to subscribe to.

    Args:
        wanted: (topic, type) in order of preference.
        offers: the publishers of those topics.
        qos: "auto", "reliable" or "best_effort".
        current: kept where nobody publishes anything that is wanted, so that a publisher may come back.
    """
    for topic, type_name in wanted:
        matching = [offer for offer in offers if (offer.topic, offer.type_name) == (topic, type_name)]
        if matching:
            reliable = all(offer.reliable for offer in matching) if qos == "auto" else qos == "reliable"
            return Choice(topic, type_name, reliable)
    return current


class FollowingSubscription:
    """Subscribes once, and again whenever ``update`` finds that the publishers changed."""

    def __init__(
        self,
        node: Node,
        wanted: Sequence[tuple[str, type]],
        callback: Callable[[Any, Choice], None],
        qos: str = "auto",
        depth: int = DEPTH,
    ) -> None:
        """Subscribe to the first of ``wanted`` (topic, message class) until a publisher shows itself.

        ``depth`` messages are kept until the executor has time for them.
        """
        self._node, self._callback, self._qos, self._depth = node, callback, qos, depth
        self._types = {_type_name(kind): kind for _, kind in wanted}
        self._wanted = [(node.resolve_topic_name(topic), _type_name(kind)) for topic, kind in wanted]
        topic, type_name = self._wanted[0]
        self.choice = Choice(topic, type_name, reliable=qos != "best_effort")
        self.offers: list[Offer] = []
        self.changed = True  # publishers came, went or were refused since the last update
        self._subscription = self._subscribe()

    @property
    def topic(self) -> str:
        """The topic it listens to now, resolved."""
        return self.choice.topic

    def update(self) -> None:
        """Look at the publishers; subscribe anew where another reliability, type or topic fits them."""
        self.changed = False
        topics = dict.fromkeys(topic for topic, _ in self._wanted)
        self.offers = [offer for topic in topics for offer in self._see(topic)]
        choice = choose(self._wanted, self.offers, self._qos, self.choice)
        if choice != self.choice:
            self._node.destroy_subscription(self._subscription)
            self.choice = choice
            self._subscription = self._subscribe()

    def problem(self) -> str:
        """Why nothing can arrive, as one sentence; empty where the publishers fit."""
        names = " or ".join(dict.fromkeys(topic for topic, _ in self._wanted))
        if not self.offers:
            return f"nobody publishes {names}; start the camera, or remap the topic"
        types = sorted({offer.type_name for offer in self.offers if offer.type_name not in self._types})
        if types and len({offer.type_name for offer in self.offers}) == len(types):
            return f"{names} carries {', '.join(types)} instead of {' or '.join(self._types)}; remap another topic"
        here = [offer for offer in self.offers if (offer.topic, offer.type_name) == (self.topic, self.choice.type_name)]
        if not here:
            other = sorted({offer.topic for offer in self.offers})
            return f"images come on {', '.join(other)} only; set node.image_transport to auto"
        if self.choice.reliable and not any(offer.reliable for offer in here):
            return (
                f"incompatible QoS on {self.topic}: {here[0].node} publishes best effort and node.image_qos asks for "
                "reliable; set it to auto, or make the publisher reliable"
            )
        return ""

    def close(self) -> None:
        """Stop listening."""
        self._node.destroy_subscription(self._subscription)

    def _see(self, topic: str) -> list[Offer]:
        return [
            Offer(
                topic,
                info.topic_type,
                info.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
                _node_name(info.node_namespace, info.node_name),
            )
            for info in self._node.get_publishers_info_by_topic(topic)
        ]

    def _subscribe(self) -> Any:
        choice = self.choice
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=self._depth,
            reliability=ReliabilityPolicy.RELIABLE if choice.reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.VOLATILE,
        )
        events = SubscriptionEventCallbacks(
            matched=self._on_event, incompatible_qos=self._on_event, use_default_callbacks=False
        )
        return self._node.create_subscription(
            self._types[choice.type_name],
            choice.topic,
            lambda message: self._callback(message, choice),
            profile,
            event_callbacks=events,
        )

    def _on_event(self, _: Any) -> None:
        """A publisher matched, left or was refused; ``update`` will see which."""
        self.changed = True


def _node_name(namespace: str, name: str) -> str:
    """Full name; discovery may know a publisher before it knows whose it is."""
    return "a publisher" if "_UNKNOWN_" in name else f"{namespace.rstrip('/')}/{name}"


def _type_name(kind: type) -> str:
    return f"{kind.__module__.split('.', 1)[0]}/msg/{kind.__name__}"
