"""REINFORCE: a recurrent controller that writes architectures, and learns from their scores by policy gradient."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.core.architecture import Architecture
from edgewright.core.seed import derive, rng
from edgewright.search.base import Excess, Proposals, Scored, Strategy, encoding
from edgewright.space.base import Space

Vector = tuple[int, ...]

DRAWN = 32


class Controller(nn.Module):
    """An LSTM that makes one choice of the integer encoding after the other; each choice is the next step's input.

    `choices`: how many choices each position has; `width`: of the embedding and the hidden state.
    """

    def __init__(self, choices: Sequence[int], width: int) -> None:
        super().__init__()
        self.choices = tuple(choices)
        self.start = nn.Parameter(0.1 * torch.randn(width))
        self.embed = nn.ModuleList(nn.Embedding(count, width) for count in choices)
        self.cell = nn.LSTMCell(width, width)
        self.policy = nn.ModuleList(nn.Linear(width, count) for count in choices)
        self.recall = nn.Linear(width, sum(choices))  # the choices, read back from the last hidden state

    def forward(self, vectors_NP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For vectors (N, P): their log probability (N,), the policy's entropy (N,), the last hidden state (N, W)."""
        step, state = self.start.expand(len(vectors_NP), -1), None
        log_probability = entropy = torch.zeros(len(vectors_NP))
        hidden = step
        for place, (embed, policy) in enumerate(zip(self.embed, self.policy, strict=True)):
            hidden, memory = self.cell(step, state)
            state = hidden, memory
            logs = functional.log_softmax(policy(hidden), dim=-1)
            log_probability = log_probability + logs.gather(1, vectors_NP[:, place, None])[:, 0]
            entropy = entropy - (logs.exp() * logs).sum(dim=-1)
            step = embed(vectors_NP[:, place])
        hidden, _ = self.cell(step, state)  # has seen the last choice, too
        return log_probability, entropy, hidden

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> list[Vector]:
        """`count` vectors from the policy."""
        step, state, chosen = self.start.expand(count, -1), None, []
        for embed, policy in zip(self.embed, self.policy, strict=True):
            state = self.cell(step, state)
            probabilities = torch.softmax(policy(state[0]), dim=-1)
            chosen.append(torch.multinomial(probabilities, 1, generator=generator)[:, 0])
            step = embed(chosen[-1])
        return [tuple(vector) for vector in torch.stack(chosen, dim=1).tolist()]

    def reconstruction(self, vectors_NP: Tensor, hidden: Tensor) -> Tensor:
        """Mean cross-entropy, nats a choice, of reading every choice back from the last hidden state."""
        parts = self.recall(hidden).split(self.choices, dim=1)
        losses = [functional.cross_entropy(part, vectors_NP[:, place]) for place, part in enumerate(parts)]
        return torch.stack(losses).mean()


@dataclass(frozen=True)
class PolicyGradient:
    """How a controller learns from a round of scores: `steps` steps of Adam.

    entropy_weight: of the policy's entropy, nats, which keeps it from settling early.   decay: of the moving average of
    standardised scores that a score is held against.
    """

    learning_rate: float = 0.01
    steps: int = 3
    entropy_weight: float = 0.1
    decay: float = 0.8


@dataclass(frozen=True)
class Memory:
    """What a controller is made to remember: the last `buffer` architectures.   weight: in the loss, of reading their
    choices back."""

    weight: float = 1.0
    buffer: int = 64


GENTLY = PolicyGradient()


class Reinforce(Strategy):
    """Policy gradient over a recurrent controller.

    The controller draws each choice of the integer encoding given those before it. After each round, with R the scores
    standardised by the mean and deviation of all so far and b their moving average,
    loss = -mean((R - b) log p(a)) - entropy_weight * mean(H) [+ memory.weight * reconstruction], `steps` steps of Adam.
    b <- decay b + (1 - decay) mean(R).

    Args:
        width: of the controller's embedding and hidden state.
        learning: the weights and steps of this.
        memory: the remedy of 'Understanding Neural Architecture Search Techniques': the controller is also trained on a
            buffer of the last architectures to keep in its last hidden state what it chose (here: the choices are read
            back from it by a linear layer). None is the plain controller; `reinforce-memory` has `Memory()`.

    Differs from the papers: REINFORCE as in NAS but with one small LSTM and standardised scores, since their scale is
    unknown; architectures outside the budget or already seen are drawn again, without punishment, or walked into the
    budget by mutation; a score -inf or NaN counts as the worst number told so far. The remedy's paper describes its
    objective in words only; the linear read-out is ours.
    Source: Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017, arXiv:1611.01578;
    Adam and Lorraine, "Understanding Neural Architecture Search Techniques", 2019, arXiv:1904.00438.
    Checked against: the gradient of log p by finite differences, a space whose best choice is independent by position
    (learned), `state_correlation` higher with the memory than without.
    """

    name = "reinforce"
    source = "Zoph and Le, Neural Architecture Search with Reinforcement Learning, ICLR 2017, arXiv:1611.01578"
    summary = "a recurrent controller trained by policy gradient"

    def __init__(
        self,
        space: Space,
        excess: Excess,
        seed: int,
        *,
        width: int = 32,
        learning: PolicyGradient = GENTLY,
        memory: Memory | None = None,
    ) -> None:
        choices = encoding(space, self.name)
        self._learning, self._memory = learning, memory
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, self.name, "weights"))
            self.controller = Controller(choices, width)
        self._optimizer = torch.optim.Adam(self.controller.parameters(), lr=learning.learning_rate)
        self._scores: list[float] = []
        self._vectors: list[Vector] = []
        self._baseline = 0.0
        self._drawn: list[Vector] = []
        self._seed = seed
        self._space, self._proposals = space, Proposals(space, excess, self.name, seed)

    def ask(self, count: int) -> list[Architecture]:
        return self._proposals.ask(count, self._wish)

    def tell(self, scored: Iterable[Scored]) -> None:
        told = self._proposals.in_order(scored)
        if not told:
            return
        self._vectors += [self._space.encode(architecture) for architecture, _ in told]
        self._scores += [score for _, score in told]
        rewards = self._rewards()[-len(told) :]
        vectors = torch.tensor(self._vectors[-len(told) :])
        with torch.enable_grad():
            for step in range(self._learning.steps):
                self._learn(vectors, rewards, step)
        self._drawn = []  # the policy is another now
        decay = self._learning.decay
        self._baseline = decay * self._baseline + (1 - decay) * float(rewards.mean())

    def _wish(self, random: Random) -> Architecture:
        if not self._drawn:  # many at once cost what one costs
            self._drawn = self.controller.draw(DRAWN, torch.Generator().manual_seed(random.getrandbits(63)))
        return self._space.decode(self._drawn.pop())

    def _rewards(self) -> Tensor:
        """All scores so far, standardised."""
        scores = torch.tensor(self._scores, dtype=torch.float64)
        finite = torch.isfinite(scores)
        if not finite.any():
            return torch.zeros(len(scores))
        scores = torch.where(finite, scores, scores[finite].min())
        return ((scores - scores.mean()) / scores.std(correction=0).clamp_min(1e-12)).float()

    def _learn(self, vectors: Tensor, rewards: Tensor, step: int) -> None:
        log_probability, entropy, _ = self.controller(vectors)
        loss = -((rewards - self._baseline) * log_probability).mean() - self._learning.entropy_weight * entropy.mean()
        if self._memory is not None:
            kept = self._vectors[-self._memory.buffer :]
            drawn = rng(self._seed, self.name, "memory", len(self._vectors), step).sample(kept, min(len(kept), 32))
            remembered = torch.tensor(drawn)
            loss = loss + self._memory.weight * self.controller.reconstruction(
                remembered, self.controller(remembered)[2]
            )
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.controller.parameters(), 1.0)
        self._optimizer.step()


class ReinforceMemory(Reinforce):
    """`Reinforce` with the memory buffer; see there."""

    name = "reinforce-memory"
    source = "Adam and Lorraine, Understanding Neural Architecture Search Techniques, 2019, arXiv:1904.00438"
    summary = "the recurrent controller, made to remember what it chose"

    def __init__(self, space: Space, excess: Excess, seed: int) -> None:
        super().__init__(space, excess, seed, memory=Memory())


@torch.no_grad()
def state_correlation(controller: Controller, vectors: Sequence[Vector]) -> float:
    """State-architecture correlation: do similar hidden states mean similar architectures? -1 to 1.

    Pearson correlation, over all pairs of `vectors`, of the Euclidean distance between the controller's last hidden
    states with the number of positions in which the two differ. NaN where one of them is constant.
    Source: Adam and Lorraine, arXiv:1904.00438, who correlate states with several graph similarities; the share of
    equal choices is the one that every encoding has.
    """
    matrix = torch.tensor(list(vectors))
    states = controller(matrix)[2]
    differing = functional.pdist(functional.one_hot(matrix, max(controller.choices)).flatten(1).float(), p=1) / 2
    pairs = torch.stack([functional.pdist(states), differing])
    return float(torch.corrcoef(pairs)[0, 1])
