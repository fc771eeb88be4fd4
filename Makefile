# `make sanitize` is `python3 dev.py sanitize`, and so on for every job that `python3 dev.py` lists;
# its arguments go into ARGS: make test ARGS="tests/core -x".
.PHONY: FORCE
%: FORCE
	@python3 dev.py $@ $(ARGS)
Makefile: ;
