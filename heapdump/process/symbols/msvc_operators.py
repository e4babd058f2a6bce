"""The letters behind `?` with which Visual C++ decorates operators and special functions."""

OPERATORS = {
    "0": "", "1": "~", "2": "operator new", "3": "operator delete", "4": "operator=", "5": "operator>>",
    "6": "operator<<", "7": "operator!", "8": "operator==", "9": "operator!=", "A": "operator[]", "C": "operator->",
    "D": "operator*", "E": "operator++", "F": "operator--", "G": "operator-", "H": "operator+", "I": "operator&",
    "J": "operator->*", "K": "operator/", "L": "operator%", "M": "operator<", "N": "operator<=", "O": "operator>",
    "P": "operator>=", "Q": "operator,", "R": "operator()", "S": "operator~", "T": "operator^", "U": "operator|",
    "V": "operator&&", "W": "operator||", "X": "operator*=", "Y": "operator+=", "Z": "operator-=",
    "__M": "operator<=>", "__L": "operator co_await",
    "_0": "operator/=", "_1": "operator%=", "_2": "operator>>=", "_3": "operator<<=", "_4": "operator&=",
    "_5": "operator|=", "_6": "operator^=", "_D": "`vbase dtor'", "_E": "`vector deleting dtor'",
    "_F": "`default ctor closure'", "_G": "`scalar deleting dtor'", "_U": "operator new[]", "_V": "operator delete[]",
}  # fmt: skip
"""Letters → name; "" for a constructor, "~" for a destructor. Conversion operators (`B`) are not here."""
