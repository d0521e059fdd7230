"""How fast may one caller go, when several processes must agree? Needs ``budgetware[redis]``."""
