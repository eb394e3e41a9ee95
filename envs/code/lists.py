"""Functions on lists of numbers."""

from resd.envs.code.arguments import Count, Int, Ints, Little, Positives, Rows
from resd.envs.code.family import Bank

family = Bank()


@family(k=(2, 3, 5))
def sum_of_multiples(xs: Ints, *, k: int) -> int:
    """Return the sum of the numbers in `xs` that are divisible by {k}."""
    return sum(x for x in xs if x % k == 0)


@family(how=("greater than", "less than", "equal to"))
def count_compared(xs: Ints, limit: Int, *, how: str) -> int:
    """Return how many numbers in `xs` are {how} `limit`."""
    if how == "greater than":
        return sum(x > limit for x in xs)
    return sum(x < limit for x in xs) if how == "less than" else xs.count(limit)


@family(which=("largest", "smallest"))
def second_extreme(xs: Ints, *, which: str) -> int:
    """Return the second {which} of the distinct values in `xs`, or 0 if there are fewer than two."""
    values = sorted(set(xs), reverse=which == "largest")
    return values[1] if len(values) > 1 else 0


@family(what=("sum", "maximum", "minimum"))
def running(xs: Ints, *, what: str) -> list[int]:
    """Return a list of the same length whose element at each place is the {what} of `xs` up to and with that place."""
    values = []
    for place in range(len(xs)):
        part = xs[: place + 1]
        values.append(sum(part) if what == "sum" else max(part) if what == "maximum" else min(part))
    return values


@family(what=("b - a", "the absolute value of b - a", "a + b"))
def neighbours(xs: Ints, *, what: str) -> list[int]:
    """Wherever a number `a` of `xs` is followed by a number `b`, take {what}. Return these values in order."""
    pairs = list(zip(xs, xs[1:]))
    if what == "a + b":
        return [a + b for a, b in pairs]
    return [b - a if what == "b - a" else abs(b - a) for a, b in pairs]


@family(side=("left", "right"))
def rotate(xs: Ints, k: Little, *, side: str) -> list[int]:
    """Return `xs` rotated by `k` places to the {side}; what falls off comes back on the other side. `k` may be longer
    than the list."""
    if not xs:
        return []
    k = k % len(xs) if side == "left" else -k % len(xs)
    return xs[k:] + xs[:k]


@family(rest=("kept as a shorter last piece", "dropped"))
def chunks(xs: Ints, size: Count, *, rest: str) -> list[list[int]]:
    """Cut `xs` into pieces of `size` numbers each, in order, and return the list of pieces. If numbers are left over at
    the end, they are {rest}."""
    pieces = [xs[i : i + size] for i in range(0, len(xs), size)]
    return [piece for piece in pieces if len(piece) == size or rest != "dropped"]


@family(first=("xs", "ys"))
def interleave(xs: Ints, ys: Ints, *, first: str) -> list[int]:
    """Return the numbers of both lists by turns, beginning with `{first}`. When one list is used up, the rest of the
    other follows."""
    one, other = (xs, ys) if first == "xs" else (ys, xs)
    mixed = [x for pair in zip(one, other) for x in pair]
    length = min(len(xs), len(ys))
    return mixed + one[length:] + other[length:]


@family(kept=("first", "last"))
def distinct(xs: Ints, *, kept: str) -> list[int]:
    """Return `xs` without repeated values, keeping the {kept} occurrence of each in its place."""
    if kept == "first":
        return list(dict.fromkeys(xs))
    return list(dict.fromkeys(xs[::-1]))[::-1]


@family(tie=("smallest", "largest"))
def most_common(xs: Ints, *, tie: str) -> int:
    """Return the value that occurs most often in `xs`, the {tie} of them if there are several; 0 for an empty list."""
    if not xs:
        return 0
    most = max(xs.count(x) for x in xs)
    best = [x for x in xs if xs.count(x) == most]
    return min(best) if tie == "smallest" else max(best)


@family(how=("equal", "strictly increasing", "strictly decreasing"))
def longest_run(xs: Ints, *, how: str) -> int:
    """Return the length of the longest piece of neighbouring numbers in `xs` that are {how}; 0 for an empty list."""
    best = length = min(len(xs), 1)
    for a, b in zip(xs, xs[1:]):
        goes_on = a == b if how == "equal" else a < b if how == "strictly increasing" else a > b
        length = length + 1 if goes_on else 1
        best = max(best, length)
    return best


@family(how=("greater", "less"))
def peaks(xs: Ints, *, how: str) -> list[int]:
    """Return the indices of the numbers in `xs` that are {how} than both their neighbours. The first and the last
    number have only one neighbour and do not count."""
    sign = 1 if how == "greater" else -1
    return [i for i in range(1, len(xs) - 1) if sign * xs[i - 1] < sign * xs[i] > sign * xs[i + 1]]


@family()
def balance_point(xs: Ints) -> int:
    """Return the first index such that the numbers before it and the numbers after it have the same sum (that of no
    numbers is 0), or -1 if there is none."""
    for i in range(len(xs)):
        if sum(xs[:i]) == sum(xs[i + 1 :]):
            return i
    return -1


@family(what=("zeros", "negative numbers"), where=("end", "front"))
def move(xs: Ints, *, what: str, where: str) -> list[int]:
    """Return the numbers of `xs` with all {what} moved to the {where}; otherwise the order stays."""
    moved = [x for x in xs if (x == 0 if what == "zeros" else x < 0)]
    others = [x for x in xs if not (x == 0 if what == "zeros" else x < 0)]
    return others + moved if where == "end" else moved + others


@family(what=("sum", "absolute difference"))
def count_pairs(xs: Ints, target: Int, *, what: str) -> int:
    """Return how many pairs of different places in `xs` hold numbers whose {what} is `target`. A pair counts once."""
    found = 0
    for i in range(len(xs)):
        for j in range(i):
            found += (xs[i] + xs[j] if what == "sum" else abs(xs[i] - xs[j])) == target
    return found


@family(what=("in both", "in at least one", "in exactly one"))
def combined(xs: Ints, ys: Ints, *, what: str) -> list[int]:
    """Return the values that are {what} of the two lists, each once, in increasing order."""
    a, b = set(xs), set(ys)
    return sorted(a & b if what == "in both" else a | b if what == "in at least one" else a ^ b)


@family(first=("added", "subtracted"))
def alternating_sum(xs: Ints, *, first: str) -> int:
    """Return the sum of `xs` in which numbers are added and subtracted by turns; the first one is {first}."""
    total = sum(xs[::2]) - sum(xs[1::2])
    return total if first == "added" else -total


@family()
def dot(xs: Ints, ys: Ints) -> int:
    """Multiply the numbers at the same places of both lists and return the sum of the products. Places that only one of
    the lists has do not count."""
    return sum(x * y for x, y in zip(xs, ys))


@family()
def best_stretch(xs: Ints) -> int:
    """Return the largest sum of neighbouring numbers in `xs`; taking none at all, with the sum 0, is allowed."""
    best = total = 0
    for x in xs:
        total = max(0, total + x)
        best = max(best, total)
    return best


@family()
def clamp(xs: Ints, low: Int, high: Int) -> list[int]:
    """Return `xs` with every number below `low` replaced by `low` and every number above `high` by `high`. If `low` is
    greater than `high`, the two change roles first."""
    low, high = min(low, high), max(low, high)
    return [min(max(x, low), high) for x in xs]


@family(which=("lower", "upper"))
def median(xs: Ints, *, which: str) -> int:
    """Return the number in the middle of `xs` when sorted, the {which} one of the two where the length is even; 0 for
    an empty list."""
    if not xs:
        return 0
    return sorted(xs)[(len(xs) - (which == "lower")) // 2]


@family(order=("never falls", "always rises", "never rises"))
def ordered(xs: Ints, *, order: str) -> bool:
    """Return whether `xs` {order} from one number to the next. Lists of fewer than two numbers do."""
    pairs = list(zip(xs, xs[1:]))
    if order == "always rises":
        return all(a < b for a, b in pairs)
    return all(a <= b if order == "never falls" else a >= b for a, b in pairs)


@family(how=("smaller", "greater"))
def ranks(xs: Ints, *, how: str) -> list[int]:
    """Return a list in which each number of `xs` is replaced by how many distinct values in `xs` are {how} than it."""
    values = set(xs)
    return [sum(v < x if how == "smaller" else v > x for v in values) for x in xs]


@family()
def first_repeat(xs: Ints) -> int:
    """Return the index of the first number in `xs` that has occurred before, or -1 if all are different."""
    for i, x in enumerate(xs):
        if x in xs[:i]:
            return i
    return -1


@family(first=("even", "odd"), order=("in their order", "each part reversed"))
def parted(xs: Ints, *, first: str, order: str) -> list[int]:
    """Return the {first} numbers of `xs` followed by the others, {order}."""
    parity = 0 if first == "even" else 1
    front, back = [x for x in xs if x % 2 == parity], [x for x in xs if x % 2 != parity]
    return front + back if order == "in their order" else front[::-1] + back[::-1]


@family(what=("sum", "length", "maximum"))
def row_values(rows: Rows, *, what: str) -> list[int]:
    """Return the {what} of every row, in order; that of an empty row is 0."""
    return [{"sum": sum(row), "length": len(row), "maximum": max(row, default=0)}[what] for row in rows]


@family()
def column_sums(rows: Rows) -> list[int]:
    """The rows may differ in length. Return the sum of every column, as many as the longest row has; what a row does
    not have counts as 0."""
    width = max(map(len, rows), default=0)
    return [sum(row[i] for row in rows if i < len(row)) for i in range(width)]


@family(order=("row by row", "column by column"))
def flattened(rows: Rows, *, order: str) -> list[int]:
    """Return all numbers of `rows` in one list, {order}. Rows may differ in length."""
    if order == "row by row":
        return [x for row in rows for x in row]
    width = max(map(len, rows), default=0)
    return [row[i] for i in range(width) for row in rows if i < len(row)]


@family(what=("sum", "maximum"))
def windows(xs: Ints, k: Count, *, what: str) -> list[int]:
    """Return the {what} of every `k` neighbouring numbers in `xs`, from left to right; an empty list if `xs` has fewer
    than `k`."""
    return [(sum if what == "sum" else max)(xs[i : i + k]) for i in range(len(xs) - k + 1)]


@family(what=("product", "sum"))
def of_the_others(xs: Ints, *, what: str) -> list[int]:
    """Return a list in which each number of `xs` is replaced by the {what} of all the others. The product of no numbers
    is 1, and their sum 0."""
    found = []
    for i in range(len(xs)):
        value = 1 if what == "product" else 0
        for x in xs[:i] + xs[i + 1 :]:
            value = value * x if what == "product" else value + x
        found.append(value)
    return found


@family()
def inversions(xs: Ints) -> int:
    """Return how many pairs of places in `xs` hold a greater number at the earlier place than at the later one."""
    return sum(a > b for i, a in enumerate(xs) for b in xs[i + 1 :])


@family()
def run_lengths(xs: Ints) -> list[list[int]]:
    """Return a list with a pair `[value, length]` for every run of equal neighbours in `xs`, from left to right."""
    runs: list[list[int]] = []
    for x in xs:
        if runs and runs[-1][0] == x:
            runs[-1][1] += 1
        else:
            runs.append([x, 1])
    return runs


@family()
def sign_changes(xs: Ints) -> int:
    """Return how often the sign changes from one number of `xs` to the next. Zeros are left out first."""
    signs = [x > 0 for x in xs if x != 0]
    return sum(a != b for a, b in zip(signs, signs[1:]))


@family(rest=("reversed too", "left as they are"))
def reverse_blocks(xs: Ints, k: Count, *, rest: str) -> list[int]:
    """Cut `xs` into blocks of `k` numbers and return it with every block reversed in its place. If fewer than `k` are
    left at the end, they are {rest}."""
    result = []
    for i in range(0, len(xs), k):
        block = xs[i : i + k]
        result += block[::-1] if len(block) == k or rest == "reversed too" else block
    return result


@family(which=("all", "the positive", "the negative"))
def mean(xs: Ints, *, which: str) -> float:
    """Return the mean of {which} numbers in `xs`, or 0.0 if there are none."""
    used = [x for x in xs if which == "all" or (x > 0 if which == "the positive" else x < 0)]
    return sum(used) / len(used) if used else 0.0


@family(tie=("smaller", "larger"))
def nearest(xs: Ints, target: Int, *, tie: str) -> int:
    """Return the number in `xs` that is nearest to `target`, the {tie} one if two are equally near; `target` itself if
    the list is empty."""
    if not xs:
        return target
    sign = 1 if tie == "smaller" else -1
    return min(xs, key=lambda x: (abs(x - target), sign * x))


@family(side=("right", "left"))
def leaders(xs: Ints, *, side: str) -> list[int]:
    """Return the numbers of `xs` that are greater than every number to their {side}, in their order."""
    return [x for i, x in enumerate(xs) if all(x > y for y in (xs[i + 1 :] if side == "right" else xs[:i]))]


@family()
def gaps(xs: Ints) -> list[int]:
    """Return the whole numbers between the smallest and the largest in `xs` that do not occur in it, in increasing
    order."""
    return [x for x in range(min(xs), max(xs)) if x not in xs] if xs else []


@family(k=(3, 4))
def remainders(xs: Ints, *, k: int) -> list[int]:
    """Return a list of {k} counts: how many numbers in `xs` leave the remainder 0, 1, and so on when divided by {k}.
    Remainders are never negative: that of -1 is {k} - 1."""
    return [sum(x % k == r for x in xs) for r in range(k)]


@family(how=("at least", "more than"))
def steps_to_reach(xs: Positives, goal: Int, *, how: str) -> int:
    """Return how many numbers from the beginning of `xs` have to be added up until the sum is {how} `goal`. That may be
    none. Return -1 if all of them are not enough."""
    for n in range(len(xs) + 1):
        if sum(xs[:n]) > goal or (how == "at least" and sum(xs[:n]) == goal):
            return n
    return -1


@family(missing=(0, -1))
def next_greater(xs: Ints, *, missing: int) -> list[int]:
    """Return a list in which each number of `xs` is replaced by the next number to its right that is greater, or by
    {missing} if there is none."""
    return [next((y for y in xs[i + 1 :] if y > x), missing) for i, x in enumerate(xs)]


@family("row_values", what=("sum", "length"))
def heaviest_row(rows: Rows, *, what: str) -> int:
    """Return the index of the row with the greatest {what}, the first of them if there are several; -1 if there are no
    rows."""
    if not rows:
        return -1
    values = [sum(row) if what == "sum" else len(row) for row in rows]
    return values.index(max(values))
