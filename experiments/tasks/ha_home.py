"""The home that the sentences of ha_json speak of: what its users fill into Home Assistant themselves."""

AREAS = (
    "kitchen", "living room", "bedroom", "guest room", "bathroom", "hallway", "office", "nursery",
    "dining room", "garage", "laundry room", "pantry", "patio", "garden", "workshop", "library",
    "entryway", "playroom", "sunroom", "utility room", "master bedroom", "music room", "conservatory",
    "greenhouse",
)  # fmt: skip

FLOORS = ("ground", "first", "second", "third", "top", "upper", "lower", "mezzanine")

# Devices and helpers by domain: a template may ask for the domain of the thing that it names.
NAMES = {
    "binary_sensor": ("water leak sensor", "mailbox flap", "freezer alarm", "doorbell contact"),
    "button": ("feed the cat", "restart router", "water the plants", "test the siren"),
    "climate": ("thermostat", "heat pump", "radiator", "underfloor heating", "air conditioner"),
    "cover": (
        "left curtain", "skylight blind", "roller shutter", "bay window shade", "side gate", "sun sail",
    ),
    "fan": ("ceiling fan", "tower fan", "desk fan", "exhaust fan", "air purifier"),
    "input_boolean": ("vacation mode", "guest mode", "quiet hours", "movie mode"),
    "input_button": ("call the elevator", "reset counters"),
    "lawn_mower": ("lawn robot", "grass cutter", "automower"),
    "light": (
        "reading lamp", "bedside lamp", "christmas tree", "lava lamp", "chandelier", "mirror lamp",
        "aquarium", "floor lamp", "star projector", "led strip",
    ),
    "lock": ("front door", "back door", "cellar door", "gun safe", "bike shed", "garden gate lock"),
    "media_player": (
        "television", "soundbar", "record player", "smart speaker", "projector", "jukebox", "radio",
    ),
    "person": ("alice", "bruno", "chiara", "dmitri", "grandma", "fatima"),
    "scene": ("dinner party", "movie night", "good morning", "romantic evening", "deep focus", "sunset"),
    "script": ("bedtime routine", "leave the house", "morning coffee", "panic", "welcome home"),
    "sensor": ("outdoor humidity", "power meter", "air quality", "rain gauge", "solar production"),
    "switch": ("coffee machine", "space heater", "fountain", "dishwasher plug", "charger", "humidifier"),
    "todo": ("packing", "homework", "chores", "wish", "hardware store", "birthday"),
    "vacuum": ("roomba", "dust buster", "robo cleaner", "dusty"),
    "valve": ("main water valve", "sprinkler", "gas valve", "drip irrigation"),
    "weather": ("berlin", "home forecast", "cabin", "oslo", "mountain hut"),
}  # fmt: skip

# What is said where a template takes any words.
PHRASES = {
    "message": (
        "dinner is ready", "the bus leaves in ten minutes", "please come downstairs", "lights out",
        "there is cake", "we are leaving now", "the guests are here", "time to do homework",
    ),
    "search_query": (
        "blue moon", "abbey road", "some jazz", "the daily news", "bohemian rhapsody", "miles davis",
        "ocean sounds", "planet earth", "workout mix", "lullabies", "vivaldi",
    ),
    "zone": ("work", "school", "church", "university", "grandmas house", "daycare"),
    "timer_name": (
        "pizza", "egg", "laundry", "tea", "bread", "nap", "pasta", "workout", "chicken", "dishwasher",
    ),
    "timer_command": (
        "lock the front door", "open the garage door", "turn off the television", "close the blinds",
        "pause the music", "turn on the coffee machine",
    ),
    "shopping_list_item": (
        "milk", "eggs", "olive oil", "dish soap", "two lemons", "coffee beans", "toilet paper",
        "rye bread", "cat food", "a birthday card",
    ),
    "todo_list_item": (
        "call the dentist", "sunscreen", "clean the gutters", "renew the passport", "light bulbs",
        "math exercises", "phone charger", "water the plants", "wool socks",
    ),
}  # fmt: skip
