"""Which frames may enter, judged by their stamps alone."""

from __future__ import annotations

from dataclasses import dataclass

from da3_ros.config import NodeConfig

# Stamps that fall back by less are out of order; by more, time itself was set back (a bag that starts again).
BACKWARD_JUMP_S = 0.5


@dataclass(frozen=True, slots=True)
class Ruling:
    """What to do with a frame."""

    drop: str = ""  # "stamp_not_increasing" or "too_old"; empty: accept
    cut: str = ""  # not empty: the chain is cut before this frame, for this reason
    reset: bool = False  # time was set back and the map with it
    age_s: float = 0.0  # how far the stamp lay behind the node clock


class StampGate:
    """Judges stamps in order of arrival; the time rules of the node in one place."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._last_ns = 0
        self._clock_fell = False
        self.jumps = 0  # backward jumps and gaps that ended a segment

    def clock_fell(self) -> None:
        """The ROS clock was set back: the next stamp that is not newer is a jump however small."""
        self._clock_fell = True

    def forget(self) -> None:
        """Start a session: any stamp is newer than none."""
        self._last_ns = 0
        self._clock_fell = False

    def judge(self, stamp_ns: int, now_ns: int) -> Ruling:
        """Rule on one frame.

        Args:
            stamp_ns: capture time.
            now_ns: node clock; 0 while a simulated clock has not started.
        """
        config = self._config
        age_s = (now_ns - stamp_ns) / 1e9 if now_ns > 0 else 0.0
        if stamp_ns <= 0:
            return Ruling(drop="stamp_not_increasing")
        if 0 < config.max_image_age_s < age_s:
            return Ruling(drop="too_old", age_s=age_s)
        last, back_s = self._last_ns, (self._last_ns - stamp_ns) / 1e9
        if last and stamp_ns <= last:
            jumped = back_s > BACKWARD_JUMP_S or self._clock_fell
            if not jumped or config.on_time_jump == "ignore":
                return Ruling(drop="stamp_not_increasing", age_s=age_s)
            self._accept(stamp_ns, jump=True)
            reason = f"time was set back by {back_s:.2f} s"
            return Ruling(cut=reason, reset=config.on_time_jump == "reset", age_s=age_s)
        if last and -back_s > config.max_gap_s:
            self._accept(stamp_ns, jump=True)
            return Ruling(cut=f"{-back_s:.2f} s without a frame", age_s=age_s)
        self._accept(stamp_ns, jump=False)
        return Ruling(age_s=age_s)

    def _accept(self, stamp_ns: int, *, jump: bool) -> None:
        self._last_ns = stamp_ns
        self._clock_fell = False
        self.jumps += jump
