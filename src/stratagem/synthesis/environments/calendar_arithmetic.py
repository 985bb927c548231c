"""The date so many days before or after another."""

import random

LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Environment:
    def days_of(self, year: int, month: int) -> int:
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        return LENGTHS[month - 1] + (month == 2 and leap)

    def generate(self, seed: int, level: int) -> list[int]:
        source = random.Random(seed)
        year, month = source.randint(1990, 2030), source.randint(1, 12)
        day = source.randint(1, self.days_of(year, month))
        return [year, month, day, source.choice((-1, 1)) * source.randint(10 * level, 40 * level)]

    def prompt(self, instance: list[int]) -> str:
        year, month, day, away = instance
        order = "after" if away > 0 else "before"
        return f"Which date is {abs(away)} days {order} {year}-{month:02}-{day:02}? Write it as YEAR-MONTH-DAY."

    def reference(self, instance: list[int]) -> str:
        year, month, day, away = instance
        while away:
            day, away = day + (1 if away > 0 else -1), away - (1 if away > 0 else -1)
            if day > self.days_of(year, month):
                day, month = 1, month + 1
            elif day < 1:
                month -= 1
            if month > 12:
                year, month = year + 1, 1
            elif month < 1:
                year, month = year - 1, 12
            if day < 1:
                day = self.days_of(year, month)
        return f"{year}-{month:02}-{day:02}"

    def score(self, instance: list[int], response: str) -> float:
        return float(response.strip() == self.reference(instance))
