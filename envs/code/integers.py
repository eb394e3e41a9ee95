"""Functions on whole numbers."""

from resd.envs.code.arguments import (
    Count,
    Hour,
    Int,
    Little,
    Long,
    Minute,
    Natural,
    Near,
    Positive,
    Positives,
    Side,
    Signed,
    Size,
    Year,
)
from resd.envs.code.family import Bank

family = Bank()


@family(what=("sum", "maximum", "number"))
def of_digits(n: Signed, *, what: str) -> int:
    """Return the {what} of the different decimal digits of `n`; each counts once, and the sign does not."""
    digits = {int(digit) for digit in str(abs(n))}
    return sum(digits) if what == "sum" else max(digits) if what == "maximum" else len(digits)


@family(sign=("keeps its sign", "becomes positive"))
def reversed_digits(n: Signed, *, sign: str) -> int:
    """Return the number with the decimal digits of `n` in reverse order, without zeros in front. A negative number
    {sign}."""
    value = int(str(abs(n))[::-1])
    return -value if n < 0 and sign == "keeps its sign" else value


@family(which=("the smallest prime that is at least", "the largest prime that is at most"))
def near_prime(n: Natural, *, which: str) -> int:
    """Return {which} `n`, or 0 if there is none."""
    step = 1 if "at least" in which else -1
    n = max(n, 2) if step == 1 else n
    while n >= 2:
        if all(n % d for d in range(2, n)):
            return n
        n += step
    return 0


@family(which=("all divisors of `n`", "the divisors of `n` except `n` itself", "the odd divisors of `n`"))
def divisors(n: Positive, *, which: str) -> list[int]:
    """Return {which}, positive and in increasing order."""
    found = [d for d in range(1, n + 1) if n % d == 0]
    if "except" in which:
        return found[:-1]
    return [d for d in found if d % 2] if "odd" in which else found


@family(what=("greatest common divisor", "least common multiple"))
def common(xs: Positives, *, what: str) -> int:
    """Return the {what} of the positive numbers in `xs`; 0 for an empty list."""
    result = xs[0] if xs else 0
    for x in xs[1:]:
        a, b = result, x
        while b:
            a, b = b, a % b
        result = a if what == "greatest common divisor" else result * x // a
    return result


@family(a=(3, 5))
def halving_steps(n: Positive, *, a: int) -> int:
    """Begin with `n`. In each step an even number is halved, and an odd number is multiplied by {a} and 1 is added.
    Return how many steps lead to 1, or -1 if 1 is not reached in 30 steps."""
    for steps in range(31):
        if n == 1:
            return steps
        n = n // 2 if n % 2 == 0 else a * n + 1
    return -1


@family(digit=("0", "1"), where=("in all", "at the end"))
def binary_digits(n: Positive, *, digit: str, where: str) -> int:
    """Write `n` in binary, without zeros in front, and return how many digits {digit} there are {where}; at the end
    means: after the last other digit."""
    text = bin(n)[2:]
    return text.count(digit) if where == "in all" else len(text) - len(text.rstrip(digit))


@family(base=(3, 5, 7))
def in_base(n: Long, *, base: int) -> list[int]:
    """Return the digits of `n` in base {base}, the most significant first; [0] for 0."""
    digits = [n % base]
    while n >= base:
        n //= base
        digits.insert(0, n % base)
    return digits


@family(how=("as often as it divides `n`", "once"))
def prime_factors(n: Positive, *, how: str) -> list[int]:
    """Return the prime factors of `n` in increasing order, each {how}; an empty list for 1."""
    found, p = [], 2
    while n > 1:
        if n % p == 0:
            found.append(p)
            n //= p
        else:
            p += 1
    return found if how != "once" else sorted(set(found))


@family(a=(1, 2), b=(1, 3))
def recursive_sequence(first: Int, second: Int, n: Little, *, a: int, b: int) -> int:
    """A sequence begins with `first` and `second`; each later term is {a} times the term before it plus {b} times the
    one before that. Return the term number `n`, where `first` has number 0."""
    for _ in range(n):
        first, second = second, a * second + b * first
    return first


@family(power=("square", "cube"))
def whole_root(n: Near, *, power: str) -> int:
    """Return the largest whole number whose {power} is at most `n`."""
    k, root = 2 if power == "square" else 3, 0
    while (root + 1) ** k <= n:
        root += 1
    return root


@family("whole_root", power=("square", "cube"))
def is_power(n: Near, *, power: str) -> bool:
    """Return whether `n` is the {power} of a whole number."""
    return any(i ** (2 if power == "square" else 3) == n for i in range(n + 1))


@family("of_digits", what=("sum", "product"))
def persistence(n: Long, *, what: str) -> int:
    """Replace `n` by the {what} of its decimal digits until only one digit is left. Return how often that was done."""
    steps = 0
    while n > 9:
        value = 0 if what == "sum" else 1
        for digit in str(n):
            value = value + int(digit) if what == "sum" else value * int(digit)
        n, steps = value, steps + 1
    return steps


@family(direction=("after", "before"))
def clock(hour: Hour, minute: Minute, minutes: Long, *, direction: str) -> list[int]:
    """Return `[hour, minute]` of the time that is `minutes` minutes {direction} the given one, on a clock of 24 hours.
    It may be on another day."""
    total = hour * 60 + minute + (minutes if direction == "after" else -minutes)
    return [total // 60 % 24, total % 60]


@family()
def leap_years(first: Year, last: Year) -> int:
    """Return how many of the years from `first` to `last`, both included, are leap years: those divisible by 4, without
    those divisible by 100 unless they are divisible by 400. If `last` is before `first` there are none."""
    return sum(y % 4 == 0 and (y % 100 != 0 or y % 400 == 0) for y in range(first, last + 1))


@family("sum_of_multiples", a=(3, 4), b=(5, 7))
def multiples_below(n: Natural, *, a: int, b: int) -> int:
    """Return the sum of the whole numbers from 0 that are less than `n` and divisible by {a} or by {b} or by both."""
    return sum(x for x in range(n) if x % a == 0 or x % b == 0)


@family(coins=((1, 5, 10), (1, 3, 4)))
def fewest_coins(amount: Natural, *, coins: tuple[int, ...]) -> int:
    """There are coins of the values {coins}, as many of each as you like. Return the least number of coins that
    together have the value `amount`."""
    best = [0]
    for value in range(1, amount + 1):
        best.append(1 + min(best[value - coin] for coin in coins if coin <= value))
    return best[amount]


@family(steps=((1, 2), (1, 3), (2, 3)))
def ways_up(n: Size, *, steps: tuple[int, ...]) -> int:
    """Return in how many ways a stair of `n` steps can be climbed from the bottom by jumps over {steps[0]} or
    {steps[1]} steps at a time. The order of jumps matters. A stair of 0 steps is climbed in one way."""
    ways = [1]
    for height in range(1, n + 1):
        ways.append(sum(ways[height - jump] for jump in steps if jump <= height))
    return ways[n]


@family(tie=("up", "down"))
def round_to(n: Int, step: Count, *, tie: str) -> int:
    """Return the multiple of `step` that is nearest to `n`; if two are equally near, round {tie}."""
    low = n // step * step
    high = low + step
    if n - low == high - n:
        return high if tie == "up" else low
    return low if n - low < high - n else high


@family("letters_in_order", order=("decreasing", "increasing"))
def sorted_digits(n: Long, *, order: str) -> int:
    """Return the number that has the decimal digits of `n` in {order} order; zeros in front do not count."""
    return int("".join(sorted(str(n), reverse=order == "decreasing")))


@family("same_from_both_sides", base=(2, 3))
def mirrored_in_base(n: Natural, *, base: int) -> bool:
    """Return whether the digits of `n` in base {base} are the same from both sides. 0 is."""
    digits = []
    while n:
        digits.append(n % base)
        n //= base
    return digits == digits[::-1]


@family()
def roman(n: Positive) -> str:
    """Return `n` as a Roman numeral in capital letters, with IV, IX, XL and the like for four and nine."""
    text = ""
    for value, sign in ((50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")):
        text += n // value * sign
        n %= value
    return text


@family()
def ordinal(n: Long) -> str:
    """Return `n` with its English ending, such as 1st, 2nd, 3rd, 4th, 11th, 12th, 13th, 21st, 112th."""
    ends = {1: "st", 2: "nd", 3: "rd"}
    return str(n) + ("th" if n // 10 % 10 == 1 else ends.get(n % 10, "th"))


@family(what=("sum of digits", "last digit"))
def divisible_by_own(low: Natural, high: Natural, *, what: str) -> int:
    """Return how many whole numbers from `low` to `high`, both included, are positive and divisible by their {what}. By
    0 nothing is divisible."""
    found = 0
    for n in range(max(low, 1), high + 1):
        value = sum(map(int, str(n))) if what == "sum of digits" else n % 10
        found += value > 0 and n % value == 0
    return found


@family(free=(10, 20), more=(2, 3))
def fee(units: Natural, *, free: int, more: int) -> int:
    """The first {free} units cost nothing, the next 15 cost {more} each, and all further ones 5 each. Return what
    `units` units cost together."""
    return min(max(units - free, 0), 15) * more + max(units - free - 15, 0) * 5


@family(move=("king", "rook", "taxi"))
def moves(x1: Int, y1: Int, x2: Int, y2: Int, *, move: str) -> int:
    """Return how many moves lead from the square (`x1`, `y1`) to (`x2`, `y2`) of an endless board. The piece is a
    {move}. A king goes to one of the eight squares around it, a taxi to one of the four beside it, above or below, and
    a rook any way straight along a row or a column."""
    dx, dy = abs(x1 - x2), abs(y1 - y2)
    return max(dx, dy) if move == "king" else dx + dy if move == "taxi" else (dx > 0) + (dy > 0)


@family()
def triangle(a: Side, b: Side, c: Side) -> str:
    """Return "none" if no triangle has sides of these lengths (the two shorter ones must be longer together than
    the third), otherwise "equilateral" if all three are equal, "isosceles" if exactly two are, and "scalene" if
    none are."""
    a, b, c = sorted((a, b, c))
    if a + b <= c:
        return "none"
    return {1: "equilateral", 2: "isosceles", 3: "scalene"}[len({a, b, c})]


@family(what=("overlap", "union"))
def intervals(a: Int, b: Int, c: Int, d: Int, *, what: str) -> int:
    """One stretch of a line lies between the places `a` and `b`, another one between `c` and `d`, in any order. Return
    the length of their {what}; what both cover counts once."""
    a, b, c, d = min(a, b), max(a, b), min(c, d), max(c, d)
    overlap = max(0, min(b, d) - max(a, c))
    return overlap if what == "overlap" else b - a + d - c - overlap


@family()
def bounce(n: Natural, k: Count) -> int:
    """Something begins at place 0 and moves one place a step, up to place `k`, back to 0, up again, and so on. Return
    its place after `n` steps."""
    place = n % (2 * k)
    return min(place, 2 * k - place)


@family(start=(0, 1))
def last_one(n: Positive, k: Count, *, start: int) -> int:
    """`n` people stand in a circle and are numbered from {start}. Counting begins with the first, every `k`-th person
    who still stands leaves, and counting goes on after that place. Return the number of the last one."""
    people, at = list(range(start, n + start)), 0
    while len(people) > 1:
        at = (at + k - 1) % len(people)
        del people[at]
    return people[0]


@family(modulus=(7, 10))
def power_remainder(base: Signed, exponent: Natural, *, modulus: int) -> int:
    """Return the remainder, from 0 to {modulus} - 1, of `base` to the power of `exponent` when divided by {modulus}. A
    power of 0 is 1."""
    return pow(base, exponent, modulus)


@family()
def ends_at_one(n: Positive) -> bool:
    """Replace `n` by the sum of the squares of its decimal digits, again and again. Return whether 1 is reached."""
    seen = set()
    while n not in seen:
        seen.add(n)
        n = sum(int(digit) ** 2 for digit in str(n))
    return n == 1


@family(inside=("o", "-"))
def rectangle(rows: Count, columns: Count, *, inside: str) -> list[str]:
    """Return as many texts as there are `rows`, each of `columns` signs, which draw a rectangle: its border is made of
    # and its inside of {inside}."""
    lines = []
    for i in range(rows):
        border = i in (0, rows - 1)
        lines.append("".join("#" if border or j in (0, columns - 1) else inside for j in range(columns)))
    return lines
