"""What the simulated model says and when it stops: a seeded function of the prompt, one word a token."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from servemark.adapters.sim.tokenizer import Tokenizer

_TEXT = """
    a about above again all also and any are arm around as ask at away back bank base be bear before bell below best
    better big bird blue boat body book both box bread bridge bring broad brook build but by call calm care carry case
    chair change city clear close cloud coast cold come corn could country cup dark day deep did do door down draw
    dream dry each early earth east easy edge end even ever every eye face fair fall far farm fast field find fine
    fire first fish floor flow fly follow food for forest form found free fresh from full garden gate give glass go
    gold good grain grass great green grow hall hand harbour has hat have hear heat heavy help here high hill hold home
    horse hour house how ice if in inside into iron is island it join journey keep kind king know lake lamp land large
    last late lead leaf learn leave left lift light like line listen little live long look low made make many map mark
    may meadow meet mile mill moon more morning most mountain move much must name narrow near new next night no noon
    north not note now oak of off often old on once one open or other our out over own page paper part path pay pen
    people pine place plain plan plant play point pond port quick quiet rain reach read ready red rest rice ride right
    rise river road rock roof room root rope round run sail salt same sand say sea season second see seed send ship
    shore short show side silver simple sing sit sky slow small smoke snow so soft soil some song soon sound south
    speak spring stand star start stay step still stone stop storm story strong summer sun sure sweet table take talk
    tall teach tell ten than that the their them then there they thin thing think this those time to today told tower
    town track trade tree true try turn two under until up use valley very village voice wait walk wall warm was watch
    water wave way we well west what wheat wheel when where which white who wide wild will wind window winter wish
    with wood word work world would write yard year yellow yes you young
"""
_WORDS = _TEXT.split()
CYCLE = 4096


class Answers:
    """`ids` and `words` are one long cycle of tokens and their JSON-safe text; each answer starts somewhere in it."""

    def __init__(self, tokenizer: Tokenizer, seed: int, mean_tokens: float) -> None:
        self._seed = seed
        self._mean_tokens = mean_tokens
        spoken = random.Random(seed).choices(_WORDS, k=CYCLE)  # noqa: S311
        ids = {word: tokenizer.ids(f" {word}")[0] for word in _WORDS}
        self.ids = tuple(ids[word] for word in spoken)
        self.words = tuple(f" {word}".encode() for word in spoken)

    def words_of(self, start: int, count: int) -> list[bytes]:
        """The words of the answer that starts there in the cycle."""
        return [self.words[at % CYCLE] for at in range(start, start + count)]

    def ids_of(self, start: int, count: int) -> list[int]:
        return [self.ids[at % CYCLE] for at in range(start, start + count)]

    def plan(self, prompt: Sequence[int], min_tokens: int, extra_seed: int = 0) -> tuple[int, int]:
        """Where the answer to this prompt starts in the cycle, and at which length it ends with EOS.

        Lengths are geometric: every token from `min_tokens` on ends the answer with probability 1 / mean. One word is
        said at least, so the second token is the first that can end it.
        """
        draw = random.Random(hash((self._seed, extra_seed, tuple(prompt))))  # noqa: S311
        start = draw.randrange(CYCLE)
        if self._mean_tokens <= 1:
            return start, max(2, min_tokens + 1)
        tokens = math.log(1 - draw.random()) / math.log1p(-1 / self._mean_tokens)
        return start, max(2, min_tokens + max(1, math.ceil(tokens)))
