from envs.manufactoria.parser import ParseError, parse
from envs.manufactoria.program import Program, Trace
