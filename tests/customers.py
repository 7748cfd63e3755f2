"""A small table of customers, awkward in the ways that real ones are."""

import random


def customers() -> list[dict[str, object]]:
    draw = random.Random(5)  # data, not a secret
    rows: list[dict[str, object]] = []
    for number in range(600):
        tenure = draw.randrange(0, 72)
        plan = draw.choice(["basic", "plus", "pro", None])
        chance = 0.7 - 0.008 * tenure + (0.2 if plan == "basic" else 0)
        rows.append(
            {
                "region": draw.choice(["north", "south", "Zürich"]),
                "account": number % 300,
                "plan name": plan,
                "tenure": tenure,
                "total charges": f" {tenure * 20.5:.2f} " if tenure else " ",
                "note": f"called {number} times",
                "churned": "Yes" if draw.random() < chance else "No",
            }
        )
    return [{**row, "region": f"{row['region']}-{index // 300}"} for index, row in enumerate(rows)]
