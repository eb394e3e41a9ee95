"""Forty functions of everyday services: what they are called, what they take, and how a request for them sounds.

A parameter's `kind` is a pool of entities (`resd.envs.function_calling.draw`), from which its JSON type follows, or the
values of an enumeration, or `flag`. Its `clause` is what a request says of it, with {} for the value; that of a flag
stands where it is not the default, and one that has none reads `if true|if false`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REQUIRED: Any = ...

# What pools give, in JSON Schema.
_STRING, _INTEGER, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
TYPES: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("person", "city", "street", "place", "firm", "product", "title", "song", "text"), _STRING),
    **dict.fromkeys(("date", "time"), _STRING),
    **dict.fromkeys(("count", "code", "percent", "year"), _INTEGER),
    "amount": _NUMBER,
    "flag": {"type": "boolean"},
    **{pool: {"type": "array", "items": _STRING} for pool in ("people", "products", "foods", "songs")},
    "codes": {"type": "array", "items": _INTEGER},
    "amounts": {"type": "array", "items": _NUMBER},
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of a function; `default` is REQUIRED where there is none."""

    name: str
    kind: str | tuple[str, ...]
    clause: str
    description: str
    default: Any = REQUIRED

    def schema(self) -> dict[str, Any]:
        """In JSON Schema."""
        enumeration = isinstance(self.kind, tuple)
        kind = {"type": "string", "enum": list(self.kind)} if enumeration else TYPES[str(self.kind)]
        default = {} if self.default is REQUIRED else {"default": self.default}
        return {**kind, "description": self.description, **default}


@dataclass(frozen=True, slots=True)
class Function:
    """`openings` are ways to begin a request; the clauses of its parameters follow in their order."""

    name: str
    description: str
    openings: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    def declaration(self) -> dict[str, Any]:
        """As a prompt shows it."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": {
                "type": "object",
                "properties": {parameter.name: parameter.schema() for parameter in self.parameters},
                "required": [parameter.name for parameter in self.parameters if parameter.default is REQUIRED],
            },
        }


def _f(name: str, description: str, openings: str, *parameters: tuple[Any, ...]) -> Function:
    return Function(name, description, tuple(openings.split("|")), tuple(Parameter(*each) for each in parameters))


_DATE, _TIME = "Day, as YYYY-MM-DD", "Time of day, as HH:MM from 00:00 to 23:59"
_ROOMS = ("kitchen", "bedroom", "bathroom", "office", "hall")
_CURRENCIES = ("EUR", "USD", "GBP", "JPY")
_CITY = ("city", "city", "in {}", "Name of the city")
_ON, _AT = ("date", "date", "on {}", _DATE), ("time", "time", "at {}", _TIME)

# fmt: off
FUNCTIONS: tuple[Function, ...] = (
    # weather and travel
    _f("weather_forecast", "Weather of a city on the coming days", "Tell me the weather|Show the weather forecast",
       _CITY, ("days", "count", "for the next {} days", "How many days", 1),
       ("unit", ("celsius", "fahrenheit"), "in degrees {}", "Unit of temperatures", "celsius")),
    _f("air_quality", "How much of a pollutant the air of a city holds", "Check the air|Measure the air quality",
       _CITY, ("pollutant", ("ozone", "soot", "pollen"), "with respect to {}", "What is measured")),
    _f("book_flight", "Books a flight", "Book a flight|Get me a flight",
       ("origin", "city", "from {}", "City of departure"), ("destination", "city", "to {}", "City of arrival"), _ON,
       ("passengers", "count", "for {} passengers", "How many people fly", 1),
       ("cabin", ("economy", "business", "first"), "in {} class", "Class", "economy")),
    _f("book_train", "Books a seat on a train", "Book a train|Reserve a seat on a train",
       ("origin", "city", "from {}", "City of departure"), ("destination", "city", "to {}", "City of arrival"), _ON,
       ("window", "flag", "with a window seat", "Whether the seat is at a window", False)),
    _f("book_hotel", "Books a room in a hotel", "Book a hotel room|Find me a hotel room",
       _CITY, ("check_in", "date", "from {}", "Day of arrival, as YYYY-MM-DD"),
       ("nights", "count", "for {} nights", "How many nights"),
       ("breakfast", "flag", "with breakfast", "Whether breakfast is included", False)),
    _f("rent_car", "Rents a car", "Rent a car|Hire a car",
       _CITY, _ON, ("days", "count", "for {} days", "How many days"),
       ("category", ("compact", "family", "van"), "of the {} category", "Size of the car", "compact"),
       ("child_seat", "flag", "with a child seat", "Whether a child seat is needed", False)),
    _f("order_taxi", "Orders a taxi to a street", "Order a taxi|Send a taxi",
       ("street", "street", "to {}", "Street and number where it is wanted"), _AT,
       ("passengers", "count", "for {} passengers", "How many people ride", 1)),
    # food
    _f("reserve_table", "Reserves a table in a restaurant", "Reserve a table|Book a table",
       ("restaurant", "place", "at {}", "Name of the restaurant"), ("guests", "count", "for {} guests", "How many eat"),
       _ON, _AT, ("outside", "flag", "outside", "Whether the table is in the open", False)),
    _f("order_pizza", "Orders pizza", "Order pizza|Have pizza delivered",
       ("kind", ("margherita", "funghi", "hawaii", "salami"), "of the kind {}", "Which pizza"),
       ("street", "street", "to {}", "Street and number to deliver to"),
       ("size", ("small", "medium", "large"), "in size {}", "Size", "medium"),
       ("extra_cheese", "flag", "with extra cheese", "Whether more cheese is wanted", False)),
    _f("find_recipe", "Finds a recipe", "Find a recipe|Look for a recipe",
       ("ingredients", "foods", "with {}", "What it uses"),
       ("servings", "count", "for {} people", "How many eat", 1),
       ("vegetarian", "flag", "without meat", "Whether it must be without meat", False)),
    _f("order_groceries", "Has groceries delivered", "Order groceries|Buy groceries",
       ("items", "foods", "namely {}", "What to buy"), ("delivery", "date", "for delivery on {}", _DATE),
       ("bags", "flag", "without bags", "Whether they come in bags", True)),
    # people
    _f("send_email", "Sends an email", "Send an email|Write an email",
       ("recipients", "people", "to {}", "Last names"), ("subject", "title", "with the subject {}", "Subject"),
       ("urgent", "flag", "marked as urgent", "Whether it is urgent", False)),
    _f("send_message", "Sends a text message", "Send a text message|Text a message",
       ("recipient", "person", "to {}", "Last name"), ("text", "text", "saying {}", "What it says")),
    _f("call_contact", "Starts a call", "Start a call|Place a call",
       ("contact", "person", "to {}", "Last name"),
       ("video", "flag", "with video", "Whether it is a video call", False)),
    _f("schedule_meeting", "Puts a meeting into the calendar", "Schedule a meeting|Set up a meeting",
       ("title", "title", "called {}", "Title"), ("participants", "people", "with {}", "Last names"), _ON, _AT,
       ("online", "flag", "held online", "Whether nobody has to come", False)),
    _f("cancel_meeting", "Takes a meeting out of the calendar", "Cancel the meeting|Call off the meeting",
       ("title", "title", "called {}", "Title"), _ON,
       ("notify", "flag", "without telling anybody", "Whether participants are told", True)),
    # reminders
    _f("set_alarm", "Sets an alarm clock", "Set an alarm|Wake me with an alarm",
       _AT, ("repeat", ("once", "daily", "weekly"), "repeated {}", "How often it rings", "once")),
    _f("set_timer", "Starts a timer", "Start a timer|Set a timer",
       ("minutes", "count", "of {} minutes", "How long"), ("label", "title", "called {}", "Name of the timer", "")),
    _f("add_reminder", "Reminds of something on a day", "Remind me|Add a reminder",
       ("text", "text", "of {}", "What to remind of"), _ON, ("time", "time", "at {}", _TIME, "09:00")),
    _f("add_task", "Adds an entry to the list of tasks", "Add a task|Put a task on my list",
       ("text", "text", "that reads {}", "What is to do"),
       ("priority", ("low", "normal", "high"), "with {} priority", "How important it is", "normal")),
    # music and films
    _f("play_song", "Plays a song", "Play the song|Put on the song",
       ("song", "song", "{}", "Title"), ("artist", "person", "by {}", "Last name of who sings", ""),
       ("repeat", "flag", "again and again", "Whether it is repeated", False)),
    _f("create_playlist", "Makes a list of songs", "Create a playlist|Make a playlist",
       ("name", "title", "called {}", "Name of the list"), ("songs", "songs", "with the songs {}", "Titles in order"),
       ("public", "flag", "that everybody can see", "Whether others see it", False)),
    _f("set_volume", "Sets how loud the speakers are", "Set the volume|Change the volume",
       ("percent", "percent", "to {} percent", "From 0 to 100"), ("room", _ROOMS, "in the {}", "Which speakers")),
    _f("find_films", "Finds films", "Find films|Search for films",
       ("genre", ("comedy", "crime", "western", "horror"), "of the genre {}", "Genre"),
       ("since", "year", "made in or after {}", "Earliest year", 1900),
       ("limit", "count", "and list {} of them", "How many to list", 10)),
    # shops
    _f("track_order", "Says where an order is", "Track order number|Find out where order number",
       ("order", "code", "{}", "Number of the order")),
    _f("return_order", "Sends an order back", "Return order number|Send back order number",
       ("order", "code", "{}", "Number of the order"),
       ("reason", ("damaged", "late", "unwanted"), "because it is {}", "Why"),
       ("refund", "flag", "for an exchange and no money back", "Whether money is wanted back", True)),
    _f("search_product", "Searches a shop", "Search the shop|Look in the shop",
       ("product", "product", "for a {}", "What is wanted"),
       ("max_price", "amount", "costing at most {} euros", "Highest price in euros", 1000.0),
       ("in_stock", "flag", "in stock right now", "Whether it must be there", False)),
    _f("add_to_cart", "Puts something into the shopping cart", "Put into the shopping cart|Add to the shopping cart",
       ("product", "product", "the {}", "What is bought"), ("quantity", "count", "{} times", "How many", 1),
       ("gift_wrap", "flag", "wrapped as a gift", "Whether it is wrapped", False)),
    # money
    _f("transfer_money", "Sends money to somebody", "Transfer money|Send money",
       ("recipient", "person", "to {}", "Last name"), ("amount", "amount", "namely {}", "How much"),
       ("currency", _CURRENCIES, "in {}", "Currency", "EUR"),
       ("note", "title", "with the note {}", "What the recipient reads", "")),
    _f("convert_currency", "Converts an amount of money", "Convert money|Work out what money is worth:",
       ("amount", "amount", "{}", "How much"), ("source", _CURRENCIES, "from {}", "Currency it is in"),
       ("target", _CURRENCIES, "to {}", "Currency that is wanted")),
    _f("pay_bill", "Pays a bill", "Pay the bill|Settle the bill",
       ("company", "firm", "of {}", "Who sent it"), ("amount", "amount", "of {} euros", "How much in euros"), _ON),
    _f("split_bill", "Divides a bill among people", "Split a bill|Divide a bill",
       ("total", "amount", "of {} euros", "Sum in euros"), ("people", "people", "among {}", "Last names"),
       ("tip", "percent", "with a tip of {} percent", "Tip in percent", 0)),
    # at home
    _f("set_thermostat", "Sets the temperature of a room", "Heat|Set the thermostat of",
       ("room", _ROOMS, "the {}", "Which room"), ("degrees", "amount", "to {} degrees", "Degrees Celsius"),
       ("until", "time", "until {}", "When heating ends, as HH:MM", "22:00")),
    _f("switch_light", "Switches the light of a room", "Switch the light|Turn the light",
       ("on", "flag", "on|off", "Whether it shines"), ("room", _ROOMS, "in the {}", "Which room"),
       ("brightness", "percent", "at {} percent brightness", "From 0 to 100", 100)),
    _f("start_vacuum", "Lets the robot clean a room", "Let the robot vacuum|Have the robot clean",
       ("room", _ROOMS, "the {}", "Which room"), _AT,
       ("quiet", "flag", "quietly", "Whether it is slow and quiet", False)),
    # work and sport
    _f("create_invoice", "Writes an invoice", "Write an invoice|Create an invoice",
       ("customer", "firm", "to {}", "Who pays"), ("items", "amounts", "with the items {}", "Prices in euros"),
       ("due", "date", "due on {}", _DATE),
       ("tax", "flag", "without tax", "Whether tax is added", True)),
    _f("reserve_rooms", "Reserves rooms of the office building", "Reserve the office rooms|Keep free the office rooms",
       ("rooms", "codes", "{}", "Numbers of the rooms"), _ON),
    _f("log_workout", "Keeps a workout in the diary", "Log a workout|Note down a workout",
       ("sport", ("running", "rowing", "swimming"), "of {}", "Kind of sport"),
       ("minutes", "count", "for {} minutes", "How long"),
       ("distance", "amount", "over {} kilometres", "Kilometres", 0.0)),
    _f("translate_text", "Translates a text", "Translate the text|Give a translation of the text",
       ("text", "text", "{}", "What is translated"),
       ("language", ("French", "German", "Polish", "Greek"), "into {}", "Language of the translation"),
       ("formal", "flag", "politely", "Whether it is in formal language", False)),
    _f("calculate_average", "Mean of numbers", "Calculate the average|Work out the average",
       ("values", "amounts", "of {}", "The numbers"), ("decimals", "count", "to {} decimals", "Digits kept", 1)),
)
# fmt: on
