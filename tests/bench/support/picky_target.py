"""A reflector that does not let one viewer in, as another project's server or, with the option `foreign=0`, as ours."""

from bench.plans import Connected, Plan
from bench.targets.base import TargetFailed
from bench.targets.reflector import Reflector

REFUSED = "viewer-1"


class Picky(Reflector):
    """Knows its people."""

    name = "picky"

    def __init__(self, options: dict[str, str]) -> None:
        super().__init__(options)
        self.foreign = options.get("foreign") != "0"

    async def join(self, plan: Plan) -> Connected:
        if plan.identity == REFUSED:
            raise TargetFailed(f"{self.name}: {plan.identity} could not join: the server closed the socket (1000)")
        return await super().join(plan)


TARGET = Picky
