"""Functions on texts."""

from resd.envs.code.arguments import Brackets, Count, Doubled, Little, Mirrored, Mixed, Phrase, Size, Start, Word, Words
from resd.envs.code.family import Bank

family = Bank()


@family(what=("vowels", "consonants"))
def count_letters(text: Mixed, *, what: str) -> int:
    """Return how many {what} `text` has, capital ones included. The vowels are a, e, i, o and u; signs that are no
    letters are neither."""
    return sum(c.isalpha() and (c in "aeiou") == (what == "vowels") for c in text.lower())


@family(ignored=("blanks and the difference between capital and small letters do not count", "every sign counts"))
def same_from_both_sides(text: Mirrored, *, ignored: str) -> bool:
    """Return whether `text` reads the same from both sides; {ignored}."""
    if ignored != "every sign counts":
        text = text.replace(" ", "").lower()
    return text == text[::-1]


@family(direction=("later", "earlier"))
def shift_letters(text: Phrase, k: Little, *, direction: str) -> str:
    """Replace every small letter of `text` by the one that comes `k` places {direction} in the alphabet, where a and z
    are next to each other. Return the new text; blanks stay."""
    if direction == "earlier":
        k = -k
    return "".join(chr((ord(c) - 97 + k) % 26 + 97) if c != " " else c for c in text)


@family(first=("capital", "small"))
def alternate_case(text: Phrase, *, first: str) -> str:
    """Return `text` with capital and small letters by turns; the first letter is {first}. Blanks stay and do not take a
    turn."""
    result, capital = "", first == "capital"
    for c in text:
        result += c.upper() if capital else c
        capital = capital if c == " " else not capital
    return result


@family(what=("the words", "the letters of each word"))
def turned_round(text: Phrase, *, what: str) -> str:
    """Return `text`, whose words are separated by single blanks, with {what} in reverse order; the rest stays."""
    words = text.split(" ")
    return " ".join(words[::-1] if what == "the words" else [word[::-1] for word in words])


@family(which=("longest", "shortest"), tie=("first", "last"))
def extreme_word(words: Words, *, which: str, tie: str) -> str:
    """Return the {which} of the words, the {tie} one if there are several; an empty text if there are no words."""
    if not words:
        return ""
    length = (max if which == "longest" else min)(map(len, words))
    return [word for word in words if len(word) == length][0 if tie == "first" else -1]


@family("run_lengths", single=("with the number 1", "without a number"))
def counted_runs(text: Doubled, *, single: str) -> str:
    """Write each run of equal letters in `text` as the letter and the length of the run: "aab" has the runs aa and b. A
    run of one letter is written {single}. Return the result."""
    result, i = "", 0
    while i < len(text):
        j = i
        while j < len(text) and text[j] == text[i]:
            j += 1
        result += text[i] + (str(j - i) if j - i > 1 or single == "with the number 1" else "")
        i = j
    return result


@family("most_common", tie=("first in the alphabet", "that occurs first"))
def commonest_letter(text: Word, *, tie: str) -> str:
    """Return the letter that occurs most often in `text`, if there are several the one {tie}; an empty text for an
    empty one."""
    letters = sorted(text) if tie == "first in the alphabet" else list(text)
    return max(letters, key=text.count, default="")


@family(of=("prefix", "suffix"))
def shared_end(a: Doubled, b: Doubled, *, of: str) -> str:
    """Return the longest {of} that both texts have."""
    if of == "suffix":
        a, b = a[::-1], b[::-1]
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return a[:n] if of == "prefix" else a[:n][::-1]


@family("distinct", which=("neighbours", "letters anywhere"))
def without_repeats(text: Doubled, *, which: str) -> str:
    """Of equal {which} in `text` keep only the first, and return the result."""
    result = ""
    for c in text:
        if c not in (result if which == "letters anywhere" else result[-1:]):
            result += c
    return result


@family(how=("may overlap", "must not overlap and are looked for from the left"))
def occurrences(text: Doubled, part: Doubled, *, how: str) -> int:
    """Return how often `part` occurs in `text`; occurrences {how}. An empty `part` occurs 0 times."""
    if not part:
        return 0
    if how != "may overlap":
        return text.count(part)
    return sum(text.startswith(part, i) for i in range(len(text)))


@family(which=("first", "last"))
def acronym(text: Phrase, *, which: str) -> str:
    """Return the {which} letters of the words of `text` as one word in capital letters."""
    return "".join(word[0 if which == "first" else -1] for word in text.split()).upper()


@family(first=("small", "capital"))
def camel_case(text: Phrase, *, first: str) -> str:
    """Join the words of `text` without blanks, each word beginning with a capital letter, except that the very first
    letter is {first}. Return the result."""
    joined = "".join(word.capitalize() for word in text.split())
    return joined if first == "capital" else joined[:1].lower() + joined[1:]


@family(ending=("ay", "et"))
def moved_start(words: Words, *, ending: str) -> list[str]:
    """Change each word: the letters before its first vowel (a, e, i, o, u) move to its end, and "{ending}" follows. A
    word without a vowel keeps its order. Return the new words."""
    result = []
    for word in words:
        n = next((i for i, c in enumerate(word) if c in "aeiou"), 0)
        result.append(word[n:] + word[:n] + ending)
    return result


@family(how=("all of them", "each once"))
def letters_in_order(text: Phrase, *, how: str) -> str:
    """Return the letters of `text` in the order of the alphabet, {how}, without blanks."""
    letters = text.replace(" ", "")
    return "".join(sorted(letters if how == "all of them" else set(letters)))


@family()
def brackets_match(text: Brackets) -> bool:
    """Return whether every bracket in `text` is closed by one of its kind, ( by ) and [ by ], in the right order."""
    while "()" in text or "[]" in text:
        text = text.replace("()", "").replace("[]", "")
    return text == ""


@family()
def depth(text: Brackets) -> int:
    """Read `text` from the left; ( and [ open, ) and ] close, of whatever kind. Return how many are open at most at the
    same time. What closes while nothing is open does not count."""
    now = most = 0
    for c in text:
        now = now + 1 if c in "([" else max(now - 1, 0)
        most = max(most, now)
    return most


@family(rest=("count as different", "do not count"))
def differences(a: Word, b: Word, *, rest: str) -> int:
    """Return at how many places the two texts have different letters. Places that only the longer one has {rest}."""
    different = sum(x != y for x, y in zip(a, b))
    return different + (abs(len(a) - len(b)) if rest == "count as different" else 0)


@family(how=("in this order, perhaps with others between them", "in any order"))
def contained(a: Doubled, b: Doubled, *, how: str) -> bool:
    """Return whether all letters of `a` occur in `b`, each as often as in `a` at least, {how}."""
    if how == "in any order":
        return all(a.count(c) <= b.count(c) for c in a)
    place = 0
    for c in b:
        if place < len(a) and a[place] == c:
            place += 1
    return place == len(a)


@family(side=("left", "right"), sign=("*", "0"))
def padded(text: Word, width: Size, *, side: str, sign: str) -> str:
    """Return `text` with as many signs {sign} on its {side} as it needs to have `width` places; unchanged if it has
    more."""
    return text.rjust(width, sign) if side == "left" else text.ljust(width, sign)


@family("reverse_blocks", last=("stays", "is left out"))
def swap_neighbours(text: Word, *, last: str) -> str:
    """Swap the first two letters of `text`, then the next two, and so on. If the number of letters is odd, the last one
    {last}. Return the result."""
    result = "".join(text[i + 1] + text[i] for i in range(0, len(text) - 1, 2))
    return result + (text[-1] if len(text) % 2 and last == "stays" else "")


@family(how=("at least", "less than"))
def words_of_length(words: Words, k: Count, *, how: str) -> list[str]:
    """Return the words that have {how} `k` letters, in their order."""
    return [word for word in words if (len(word) >= k) == (how == "at least")]


@family(what=("removed", "doubled"))
def change_vowels(text: Phrase, *, what: str) -> str:
    """Return `text` with every vowel (a, e, i, o, u) {what}."""
    factor = 0 if what == "removed" else 2
    return "".join(c * factor if c in "aeiou" else c for c in text)


@family(a=(1, 0))
def letter_sum(text: Phrase, *, a: int) -> int:
    """Each small letter has its place in the alphabet as its value: a is {a}, b one more, and so on. Return the sum of
    the values of the letters in `text`; blanks do not count."""
    return sum(ord(c) - 97 + a for c in text if c != " ")


@family()
def wrapped(text: Phrase, width: Little) -> list[str]:
    """Put the words of `text` into lines, in order, words in a line separated by one blank: a word goes into the same
    line if the line then has at most `width` places, otherwise it begins a new one. A word is never cut. Return the
    lines; none if there are no words."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


@family(how=("only once", "more than once"))
def first_letter(text: Word, *, how: str) -> int:
    """Return the index of the first letter in `text` that occurs {how} in it, or -1 if there is none."""
    return next((i for i, c in enumerate(text) if (text.count(c) == 1) == (how == "only once")), -1)


@family("interleave", first=("a", "b"))
def zipped(a: Word, b: Word, *, first: str) -> str:
    """Return a text with the letters of `a` and `b` by turns, beginning with `{first}`; what is left of the longer one
    follows at the end."""
    one, other = (a, b) if first == "a" else (b, a)
    length = min(len(a), len(b))
    return "".join(x + y for x, y in zip(one, other)) + one[length:] + other[length:]


@family("of_digits", what=("digits", "numbers"))
def sum_in_text(text: Mixed, *, what: str) -> int:
    """Return the sum of the {what} in `text`. A number is a run of neighbouring digits; signs such as - and . belong to
    no number. The sum of none is 0."""
    kept = "".join(c if c.isdigit() else " " for c in text)
    return sum(int(part) for part in (kept.replace(" ", "") if what == "digits" else kept.split()))


@family(by=("length", "last letter", "number of different letters"))
def words_sorted_by(words: Words, *, by: str) -> list[str]:
    """Return the words sorted by their {by}, in increasing order; where that is equal, in their given order. An empty
    word comes first."""
    if by == "last letter":
        return sorted(words, key=lambda word: word[-1:])
    return sorted(words, key=len if by == "length" else lambda word: len(set(word)))


@family()
def mirrored_alphabet(text: Phrase) -> str:
    """Replace a by z, b by y, c by x, and so on through the alphabet, in `text`. Blanks stay. Return the result."""
    return "".join(c if c == " " else chr(219 - ord(c)) for c in text)


@family(sign=("*", "-"))
def hidden(text: Phrase, start: Start, *, sign: str) -> str:
    """Return `text` with every letter of those of its words that begin with `start` replaced by {sign}. An empty
    `start` hides nothing."""
    words = text.split(" ")
    return " ".join(sign * len(each) if start and each.startswith(start) else each for each in words)


@family("same_from_both_sides")
def longest_mirror(text: Doubled) -> int:
    """Return the length of the longest piece of `text` that reads the same from both sides; 0 for an empty text."""
    pieces = [text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)]
    return max((len(piece) for piece in pieces if piece == piece[::-1]), default=0)


@family(kind=("letters", "digits"))
def only(text: Mixed, *, kind: str) -> str:
    """Return `text` without everything that is not one of its {kind}."""
    return "".join(c for c in text if (c.isalpha() if kind == "letters" else c.isdigit()))


@family(order=("first met, first", "alphabetical"))
def word_counts(words: Words, *, order: str) -> list[str]:
    """Return a list with a text such as "see 2" for every different word: the word, a blank, and how often it occurs.
    The order is: {order}."""
    found = list(dict.fromkeys(words)) if order != "alphabetical" else sorted(set(words))
    return [f"{word} {words.count(word)}" for word in found]


@family(k=(2, 3))
def every_nth(text: Word, *, k: int) -> str:
    """Return the letters of `text` number {k}, two times {k}, three times {k}, and so on, as one text. The first letter
    has number 1."""
    return text[k - 1 :: k]


@family("first_repeat")
def is_isogram(text: Word) -> bool:
    """Return whether no letter occurs twice in `text`."""
    return len(set(text)) == len(text)


@family(where=("after", "before"))
def cut_at_vowels(text: Word, *, where: str) -> list[str]:
    """Cut `text` {where} every vowel (a, e, i, o, u) and return the pieces in order; pieces without a letter are left
    out."""
    for vowel in "aeiou":
        text = text.replace(vowel, vowel + " " if where == "after" else " " + vowel)
    return text.split()
