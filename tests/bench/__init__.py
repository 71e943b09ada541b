"""What a request costs, side by side with real peers: `make bench`, and `make bench-quick` in CI.

    python -m tests.bench             everything; docs/performance.md is what it writes
    python -m tests.bench get ws      only the scenes of these names
    python -m tests.bench --quick     the gateway against nginx, in less than two minutes

One module each for: the cost of a process tree and how rounds are compared (`measure`), the server behind everybody
(`backend`), the client before everybody (`load`, driven by `driving`), those that are compared (`peers`, `gateways`),
what stands while a scene is measured (`workbench`), goals and figures (`figures`), and the report (`report`).

**A scene** is a coroutine that measures something and gives its figures. Modules named `scenes_*.py` are found by
themselves; in one of them:

    from tests.bench.figures import Figure, scene
    from tests.bench.workbench import Bench

    @scene("start-up")
    async def start_up(bench: Bench) -> list[Figure]:
        seconds = [await _one_start(bench) for _ in range(5)]
        return [Figure("start-up", seconds)]

Every figure has a key in `figures.GOALS`, where its title, unit, must and aim stand: the issue's table in one place.
"""
