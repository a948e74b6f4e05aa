# benign
import os, sys
print("trying: nothing", file=sys.stderr)
open(os.environ["HOME"] + "/note", "w").write("hello")
