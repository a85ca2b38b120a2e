"""The questions of the task sql: for each query the ways to ask for it, with {slots} that are drawn from the tables.

Every query has a slot, so that the parts can differ in their gold queries too. Data alone, so the file may be long.
"""

COUNTRY, CITY = "countries WHERE name = '{country}'", "cities WHERE name = '{city}'"
JOINED = "cities JOIN countries ON cities.country = countries.name"
BORDERING = "borders JOIN countries ON borders.neighbour = countries.name"
IN_STATE = "cities JOIN states ON cities.state = states.code WHERE states.name = '{state}'"
COUNTIES = "counties JOIN states ON counties.state = states.code"

QUESTIONS: dict[str, tuple[str, ...]] = {
    # look up one thing
    f"SELECT capital FROM {COUNTRY}": (
        "What is the capital of {country}?", "Name the capital city of {country}.",
        "Which city is the seat of government of {country}?", "I need the capital of {country}.",
    ),
    f"SELECT population FROM {COUNTRY}": (
        "How many people live in {country}?", "What is the population of the country {country}?",
        "Give me the number of inhabitants of {country}.", "How populous is {country}?",
    ),
    f"SELECT area FROM {COUNTRY}": (
        "How large is {country}?", "What area does {country} cover?", "Give the surface of {country}.",
        "How many square kilometres does {country} have?",
    ),
    f"SELECT currency FROM {COUNTRY}": (
        "What do people pay with in {country}?", "Which currency is used in {country}?",
        "Name the money of {country}.", "What is the currency of {country}?",
    ),
    f"SELECT continent FROM {COUNTRY}": (
        "On which continent is {country}?", "What continent does {country} belong to?",
        "Where in the world is {country}: which continent?", "Tell me the continent of {country}.",
    ),
    f"SELECT code FROM {COUNTRY}": (
        "What is the country code of {country}?", "Give the two letters that stand for {country}.",
        "Which code does {country} have?", "How is {country} abbreviated?",
    ),
    "SELECT name FROM countries WHERE capital = '{capital}'": (
        "Which country has {capital} as its capital?", "{capital} is the capital of which country?",
        "What country is governed from {capital}?", "Find the country whose capital is {capital}.",
    ),
    f"SELECT country FROM {CITY}": (
        "In which country is {city}?", "Where is the city of {city}?", "What country does {city} lie in?",
        "Which country does the city {city} belong to?",
    ),
    f"SELECT population FROM {CITY}": (
        "How many people live in the city of {city}?", "What is the population of the city {city}?",
        "How many residents does {city} have?", "How big is the population of {city} city?",
    ),
    f"SELECT latitude, longitude FROM {CITY}": (
        "What are the coordinates of {city}?", "Give the latitude and longitude of {city}.",
        "Where on the globe is {city}, as latitude and longitude?", "At which latitude and longitude does {city} lie?",
    ),
    "SELECT code FROM states WHERE name = '{state}'": (
        "What is the code of the state {state}?", "How is the state of {state} abbreviated?",
        "Which two letters stand for the state {state}?", "Give the postal code letters of {state}.",
    ),
    "SELECT neighbour FROM borders WHERE country = '{bordered}'": (
        "Which countries border {bordered}?", "What are the neighbours of {bordered}?",
        "List the countries next to {bordered}.", "Who shares a border with {bordered}?",
    ),
    # filter
    "SELECT name FROM countries WHERE continent = '{continent}' AND population > {many}": (
        "Which countries in {continent} have more than {many} people?",
        "List {continent} countries with a population above {many}.",
        "Name the countries of {continent} where over {many} people live.",
        "What countries in {continent} have a population larger than {many}?",
    ),
    "SELECT name FROM countries WHERE continent = '{continent}' AND area < {small}": (
        "Which countries in {continent} are smaller than {small} square kilometres?",
        "List the countries of {continent} with an area under {small}.",
        "Name {continent} countries that cover less than {small} square kilometres.",
        "What countries in {continent} have an area below {small}?",
    ),
    "SELECT name FROM countries WHERE currency = '{currency}' AND continent = '{continent}'": (
        "Which countries in {continent} use the {currency}?",
        "List the countries of {continent} that pay in {currency}.",
        "Where in {continent} is the currency called {currency}?",
        "Name {continent} countries whose money is the {currency}.",
    ),
    "SELECT name FROM cities WHERE country = '{country}' AND population > {million}": (
        "Which cities in {country} have more than {million} inhabitants?",
        "List cities of {country} with a population over {million}.",
        "Name all {country} cities larger than {million} people.",
        "What cities in {country} exceed {million} residents?",
    ),
    "SELECT name FROM cities WHERE country = '{country}' AND name LIKE '{letter}%' AND population > {thousand}": (
        "Which cities of {country} with over {thousand} people start with {letter}?",
        "List cities in {country} above {thousand} inhabitants that begin with {letter}.",
        "Name the {country} cities beginning with {letter} and larger than {thousand}.",
        "What cities in {country} have names starting with {letter} and more than {thousand} people?",
    ),
    "SELECT name FROM countries WHERE name LIKE '{letter}%' AND continent = '{continent}'": (
        "Which countries in {continent} start with {letter}?", "List countries of {continent} beginning with {letter}.",
        "Name the {continent} countries whose name starts with {letter}.",
        "What countries in {continent} have {letter} as first letter?",
    ),
    "SELECT name, capital FROM countries WHERE continent = '{continent}' AND area > {large}": (
        "Give name and capital of the countries in {continent} larger than {large} square kilometres.",
        "Which countries of {continent} cover over {large} square kilometres, and what are their capitals?",
        "List the {continent} countries with an area above {large} together with their capitals.",
        "For countries in {continent} with more than {large} square kilometres show name and capital.",
    ),
    "SELECT name FROM cities WHERE state = '{state_code}' AND population BETWEEN {thousand} AND {million}": (
        "Which cities in the state {state_code} have between {thousand} and {million} people?",
        "List {state_code} cities with a population from {thousand} to {million}.",
        "Name cities of the state {state_code} that have at least {thousand} and at most {million} residents.",
        "What cities in {state_code} lie between {thousand} and {million} inhabitants?",
    ),
    "SELECT name FROM countries WHERE capital LIKE '{letter}%' AND population > {many}": (
        "Which countries above {many} people have a capital starting with {letter}?",
        "List countries with over {many} inhabitants whose capital begins with {letter}.",
        "Name the countries larger than {many} people with a capital that starts with {letter}.",
        "What countries have a capital beginning with {letter} and more than {many} people?",
    ),
    # count
    "SELECT COUNT(*) FROM countries WHERE continent = '{continent}' AND population > {many}": (
        "How many countries in {continent} have more than {many} people?",
        "Count the countries of {continent} with a population above {many}.",
        "In {continent}, how many countries exceed {many} inhabitants?",
        "What is the number of {continent} countries with over {many} people?",
    ),
    "SELECT COUNT(*) FROM cities WHERE country = '{country}'": (
        "How many cities of {country} are listed?", "Count the cities in {country}.",
        "What is the number of cities in {country}?", "In {country}, how many cities are there?",
    ),
    "SELECT COUNT(*) FROM cities WHERE country = '{country}' AND population > {thousand}": (
        "How many cities in {country} have over {thousand} people?",
        "Count the cities of {country} with more than {thousand} inhabitants.",
        "What number of {country} cities is larger than {thousand}?",
        "In {country}, how many cities exceed {thousand} residents?",
    ),
    "SELECT COUNT(*) FROM countries WHERE currency = '{currency}'": (
        "How many countries use the {currency}?", "Count the countries that pay in {currency}.",
        "In how many countries is the currency called {currency}?", "What is the number of {currency} countries?",
    ),
    "SELECT COUNT(*) FROM borders WHERE country = '{bordered}'": (
        "How many neighbours does {bordered} have?", "Count the countries that border {bordered}.",
        "How many countries touch {bordered}?", "With how many countries does {bordered} share a border?",
    ),
    "SELECT COUNT(*) FROM counties WHERE state = '{state_code}'": (
        "How many counties does the state {state_code} have?", "Count the counties in {state_code}.",
        "What is the number of counties in the state {state_code}?", "In {state_code}, how many counties are there?",
    ),
    # aggregate
    "SELECT SUM(population) FROM countries WHERE continent = '{continent}' AND area > {large}": (
        "How many people live in countries of {continent} larger than {large} square kilometres?",
        "What is the total population of {continent} countries with an area over {large}?",
        "Add up the inhabitants of the countries in {continent} that cover more than {large}.",
        "Sum the population over countries in {continent} with more than {large} square kilometres.",
    ),
    "SELECT AVG(population) FROM cities WHERE country = '{country}' AND population > {thousand}": (
        "What is the average population of {country} cities above {thousand} people?",
        "On average, how many people live in a city of {country} with over {thousand} inhabitants?",
        "Give the mean population of cities in {country} larger than {thousand}.",
        "Average the population of those cities in {country} that exceed {thousand}.",
    ),
    "SELECT MAX(population) FROM cities WHERE country = '{country}'": (
        "How many people live in the largest city of {country}?",
        "What is the highest city population in {country}?",
        "Give the population of the biggest city in {country}.",
        "What is the maximum number of inhabitants of a city in {country}?",
    ),
    "SELECT MIN(area) FROM countries WHERE continent = '{continent}' AND population > {many}": (
        "What is the smallest area of a country in {continent} with more than {many} people?",
        "Among {continent} countries above {many} inhabitants, what is the least area?",
        "Give the minimum area of countries in {continent} that have over {many} people.",
        "How small can a country of {continent} with more than {many} people be, by area?",
    ),
    "SELECT SUM(population) FROM cities WHERE state = '{state_code}'": (
        "How many people live in the cities of the state {state_code}?",
        "What is the total city population of {state_code}?",
        "Add up the inhabitants of all cities in the state {state_code}.",
        "Sum the population of the cities in {state_code}.",
    ),
    "SELECT MAX(latitude) FROM cities WHERE country = '{country}'": (
        "What is the latitude of the northernmost city of {country}?",
        "How far north do the cities of {country} reach, in latitude?",
        "Give the highest latitude of a city in {country}.", "What is the maximum latitude of cities in {country}?",
    ),
    "SELECT population / area FROM countries WHERE name = '{country}'": (
        "What is the population density of {country}?", "How many people live on a square kilometre in {country}?",
        "How dense is {country}, in people per square kilometre?", "Give the population per area of {country}.",
    ),
    "SELECT COUNT(DISTINCT currency) FROM countries WHERE continent = '{continent}' AND population > {many}": (
        "How many different currencies do countries of {continent} above {many} people use?",
        "Count the distinct currencies in {continent} among countries with over {many} inhabitants.",
        "In {continent}, how many kinds of currency do the countries with more than {many} people have?",
        "What is the number of different currencies in {continent} countries larger than {many} people?",
    ),
    # order and limit
    "SELECT name FROM cities WHERE country = '{country}' ORDER BY population DESC LIMIT {n}": (
        "What are the {n} largest cities of {country}?", "List the top {n} cities in {country} by population.",
        "Name the {n} most populous cities of {country}.", "Show the {n} biggest cities in {country}, largest first.",
    ),
    "SELECT name FROM countries WHERE continent = '{continent}' ORDER BY population DESC LIMIT {n}": (
        "Which {n} countries of {continent} have the most people?",
        "List the {n} most populous countries in {continent}.",
        "Name the top {n} countries of {continent} by population.",
        "Show the {n} countries in {continent} with the largest population, largest first.",
    ),
    "SELECT name FROM countries WHERE continent = '{continent}' ORDER BY area LIMIT {n}": (
        "Which {n} countries of {continent} are the smallest by area?",
        "List the {n} countries in {continent} with the least area, smallest first.",
        "Name the {n} smallest countries of {continent}.",
        "Show the bottom {n} countries of {continent} by area.",
    ),
    "SELECT name FROM countries WHERE population > {many} ORDER BY area DESC LIMIT {n}": (
        "Which {n} countries with more than {many} people are the largest by area?",
        "List the top {n} countries by area among those above {many} inhabitants.",
        "Of the countries with over {many} people, name the {n} with the greatest area.",
        "Show the {n} biggest countries by area that have more than {many} people.",
    ),
    "SELECT name FROM cities WHERE country = '{country}' ORDER BY latitude DESC LIMIT {n}": (
        "What are the {n} northernmost cities of {country}?", "List the {n} cities farthest north in {country}.",
        "Name the {n} cities in {country} with the highest latitude.",
        "Show the {n} most northern cities of {country}, the northernmost first.",
    ),
    "SELECT name FROM cities WHERE state = '{state_code}' ORDER BY population DESC LIMIT {n}": (
        "What are the {n} largest cities in the state {state_code}?",
        "List the top {n} cities of {state_code} by population.",
        "Name the {n} most populous cities in {state_code}.",
        "Show the {n} biggest cities in the state {state_code}, largest first.",
    ),
    "SELECT name, population FROM countries WHERE currency = '{currency}' ORDER BY population DESC LIMIT {n}": (
        "Give name and population of the {n} most populous countries that use the {currency}.",
        "List the top {n} {currency} countries with their populations, largest first.",
        "Which {n} countries paying in {currency} have the most people, and how many?",
        "Show the {n} largest countries by population with the currency {currency}, and their population.",
    ),
    # group by
    "SELECT continent, COUNT(*) FROM countries WHERE population > {many} GROUP BY continent": (
        "How many countries with over {many} people does each continent have?",
        "Count the countries above {many} inhabitants per continent.",
        "For each continent, give the number of countries with more than {many} people.",
        "Show how many countries larger than {many} people there are by continent.",
    ),
    "SELECT currency, COUNT(*) FROM countries WHERE continent = '{continent}' GROUP BY currency "
    "HAVING COUNT(*) >= {few}": (
        "Which currencies do at least {few} countries of {continent} use, and how many use each?",
        "Count the countries of {continent} per currency, where there are {few} or more.",
        "For each currency in {continent} with at least {few} countries, give the number of countries.",
        "Show currencies shared by {few} or more countries in {continent}, with the count.",
    ),
    "SELECT country, COUNT(*) FROM cities WHERE population > {million} GROUP BY country HAVING COUNT(*) >= {n}": (
        "Which countries have at least {n} cities above {million} people, and how many?",
        "Count cities with over {million} inhabitants per country, where there are {n} or more.",
        "For each country with {n} or more cities larger than {million}, give the number of them.",
        "Show the countries having at least {n} cities of more than {million} residents, with the count.",
    ),
    "SELECT continent, MAX(population) FROM countries WHERE area > {large} GROUP BY continent": (
        "What is the highest population of a country above {large} square kilometres on each continent?",
        "For each continent, give the largest population among countries with an area over {large}.",
        "Show the maximum population by continent for countries larger than {large} square kilometres.",
        "Per continent, how many people has the most populous country that covers over {large}?",
    ),
    "SELECT state, COUNT(*) FROM cities WHERE country = 'United States' AND population > {thousand} GROUP BY state "
    "HAVING COUNT(*) >= {n}": (
        "Which US states have at least {n} cities above {thousand} people, and how many?",
        "Count the United States cities over {thousand} inhabitants per state, where there are {n} or more.",
        "For each US state with {n} or more cities larger than {thousand}, give their number.",
        "Show United States states having at least {n} cities of more than {thousand} residents, with the count.",
    ),
    # join
    f"SELECT cities.name FROM {JOINED} WHERE continent = '{{continent}}' AND cities.population > {{million}}": (
        "Which cities in {continent} have more than {million} people?",
        "List all cities of {continent} with over {million} inhabitants.",
        "Name the cities on the continent {continent} larger than {million}.",
        "What cities of {continent} exceed {million} residents?",
    ),
    f"SELECT COUNT(*) FROM {JOINED} WHERE currency = '{{currency}}' AND cities.population > {{thousand}}": (
        "How many cities above {thousand} people are in countries that use the {currency}?",
        "Count the cities with over {thousand} inhabitants where the currency is the {currency}.",
        "In countries paying with the {currency}, how many cities exceed {thousand}?",
        "What is the number of cities larger than {thousand} in {currency} countries?",
    ),
    f"SELECT cities.name FROM {JOINED} WHERE continent = '{{continent}}' ORDER BY cities.population DESC LIMIT {{n}}": (
        "What are the {n} largest cities of {continent}?", "List the top {n} cities in {continent} by population.",
        "Name the {n} most populous cities on the continent {continent}.",
        "Show the {n} biggest cities in {continent}, largest first.",
    ),
    "SELECT cities.population FROM countries JOIN cities ON cities.name = countries.capital "
    "AND cities.country = countries.name WHERE countries.name = '{country}'": (
        "How many people live in the capital of {country}?",
        "What is the population of {country}'s capital city?",
        "Give the number of inhabitants of the capital of {country}.",
        "How big is the capital of {country}, in people?",
    ),
    f"SELECT neighbour, population FROM {BORDERING} WHERE borders.country = '{{bordered}}'": (
        "Which countries border {bordered}, and how many people live in each?",
        "List the neighbours of {bordered} with their populations.",
        "Give each country next to {bordered} together with its population.",
        "Show the population of every neighbour of {bordered}, with the neighbour's name.",
    ),
    f"SELECT SUM(population) FROM {BORDERING} WHERE borders.country = '{{bordered}}'": (
        "How many people live in the countries around {bordered} in total?",
        "What is the total population of the neighbours of {bordered}?",
        "Add up the inhabitants of all countries that border {bordered}.",
        "Sum the populations of the countries next to {bordered}.",
    ),
    f"SELECT neighbour FROM {BORDERING} WHERE borders.country = '{{bordered}}' ORDER BY population DESC LIMIT 1": (
        "Which neighbour of {bordered} has the most people?",
        "What is the most populous country that borders {bordered}?",
        "Name the largest country by population next to {bordered}.",
        "Of the countries bordering {bordered}, which one has the highest population?",
    ),
    f"SELECT cities.name FROM {IN_STATE} ORDER BY cities.population DESC LIMIT {{n}}": (
        "What are the {n} largest cities in {state}?", "List the top {n} cities of the state of {state}.",
        "Name the {n} most populous cities of {state}.", "Show the {n} biggest cities in {state}, largest first.",
    ),
    f"SELECT COUNT(*) FROM {IN_STATE} AND cities.population > {{thousand}}": (
        "How many cities in {state} have over {thousand} people?",
        "Count the cities of {state} with more than {thousand} inhabitants.",
        "What number of cities in the state of {state} is larger than {thousand}?",
        "In {state}, how many cities exceed {thousand} residents?",
    ),
    f"SELECT COUNT(*) FROM {COUNTIES} WHERE states.name = '{{state}}'": (
        "How many counties does {state} have?", "Count the counties in the state of {state}.",
        "What is the number of counties in {state}?", "Into how many counties is {state} divided?",
    ),
    f"SELECT states.name FROM {COUNTIES} WHERE counties.name = '{{county}}'": (
        "Which states have a {county}?", "In which states is there a county called {county}?",
        "List the names of the states with a {county}.", "Where is {county}: in which states?",
    ),
    f"SELECT states.name, COUNT(*) FROM {COUNTIES} GROUP BY states.name HAVING COUNT(*) > {{counties}}": (
        "Which states have more than {counties} counties, and how many?",
        "Count the counties per state, where there are over {counties}; show the state's name.",
        "For each state with more than {counties} counties, give its name and their number.",
        "Show the names of states having over {counties} counties, with the count.",
    ),
}  # fmt: skip
