"""Instruction sets, threads, fork, OpenBLAS, import: in fresh processes where they are chosen."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from reference import processes

import attnnet
from attnnet import _core

SETS = _core.config()["isa_available"]


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True,
                          text=True, cwd=processes.neutral_folder(),
                          env=processes.environment(**environment), timeout=120)


@pytest.mark.parametrize("isa", SETS)
def test_isa_override_runs_that_set_and_agrees(isa):
    code = """
        import attnnet, numpy as np
        print(attnnet._core.config()["isa"])
        x = attnnet.Tensor(np.linspace(-20, 20, 1003), requires_grad=True)
        y = x.sigmoid() * x.tanh() + (x * 0.1).exp() + x.relu()
        y.sum().backward()
        e = np.exp
        v = np.linspace(-20, 20, 1003).astype("f4").astype("f8")
        exact = np.tanh(v) / (1 + e(-v)) + e(v * 0.1) + np.maximum(v, 0)
        print(float(np.max(np.abs(y.numpy() - exact) / np.abs(exact).clip(1e-3))))
    """
    done = run(code, ATTNNET_ISA=isa)
    assert done.returncode == 0, done.stderr
    name, error = done.stdout.split()
    assert name == isa
    assert float(error) <= 2e-6


def test_unknown_isa_is_refused_at_import():
    done = run("import attnnet", ATTNNET_ISA="avx9")
    assert done.returncode != 0 and "expected baseline, avx2 or avx512" in done.stderr


def test_environment_is_left_as_it_was():
    code = """
        import os
        before = dict(os.environ)
        import attnnet
        assert dict(os.environ) == before
    """
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_sources_without_a_core_are_explained(tmp_path):
    shutil.copytree(Path(attnnet.__file__).parent, tmp_path / "attnnet",
                    ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    done = subprocess.run([sys.executable, "-c", "import attnnet"], cwd=tmp_path, text=True,
                          capture_output=True, env=processes.environment(PYTHONPATH=str(tmp_path)))
    assert "core of attnnet is not compiled in" in done.stderr.splitlines()[-1]


def test_missing_openblas_is_explained():
    done = run("import attnnet", ATTNNET_OPENBLAS="/nowhere/libopenblas.so")
    assert done.returncode != 0 and "OpenBLAS could not be loaded" in done.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_openblas_that_multiplies_wrongly_is_refused(tmp_path):
    source = tmp_path / "wrong.c"
    source.write_text("void cblas_sgemm() {} const char *openblas_get_corename() { return \"X\"; }")
    library = tmp_path / "wrong.so"
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    done = run("import attnnet", ATTNNET_OPENBLAS=str(library))
    assert done.returncode != 0
    assert "wrong.so multiplies wrongly with its core type X" in done.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_an_openblas_that_is_refused_leaves_the_one_before_in_use(tmp_path):
    source, library = tmp_path / "wrong.c", tmp_path / "wrong.so"
    source.write_text("void cblas_sgemm() {} const char *openblas_get_corename() { return \"X\"; }")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    code = f"""
        import attnnet, numpy as np
        from attnnet import _core
        before = _core.config()
        try:
            _core.load_blas({str(library)!r})
        except RuntimeError as error:
            assert "core type X" in str(error), error
        assert _core.config() == before
        x = attnnet.Tensor(np.full((40, 50), 2.0))
        assert (x @ x.T).tolist() == [[200.0] * 40] * 40
    """
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shift", range(4))
def test_a_message_cut_inside_a_character(shift):
    with pytest.raises(RuntimeError, match=r"OpenBLAS could not be loaded: .*é"):
        _core.load_blas("/" + "x" * shift + "/éöü" * 200)


def test_import_loads_no_extra():
    code = """
        import sys, attnnet
        print([m for m in ("matplotlib", "torch", "PIL", "safetensors", "tqdm", "scipy", "argparse")
               if m in sys.modules])
    """
    done = run(code)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_show_config_names_what_is_in_use(capsys):
    attnnet.show_config()
    text = capsys.readouterr().out
    for word in ("instruction set", "openblas core type", "threads", "numpy"):
        assert word in text


@pytest.mark.skipif(not os.environ.get("ATTNNET_CFLAGS"), reason="no options were asked for")
def test_the_core_is_that_of_the_options_that_were_asked_for():
    assert attnnet.config.config()["compiler"].endswith(f" {os.environ['ATTNNET_CFLAGS']}")


@pytest.mark.parametrize("number", [0, -1, 257, 10**12])
def test_thread_numbers_out_of_range(number):
    with pytest.raises(ValueError, match=f"num_threads is {number}, expected 1 to 256"):
        attnnet.set_num_threads(number)


def test_bits_do_not_depend_on_threads():
    array = np.random.default_rng(2).standard_normal((64, 48, 9, 7)).astype("f4")
    results = []
    before = attnnet.get_num_threads()
    try:
        for threads in (1, 2, 3, 5):
            attnnet.set_num_threads(threads)
            x = attnnet.Tensor(array, requires_grad=True)
            y = (x * x.mean(dim=(2, 3), keepdim=True)).sigmoid()
            y.var(dim=(0, 2, 3)).sum().backward()
            results.append((y.numpy().copy(), x.grad.numpy().copy()))
    finally:
        attnnet.set_num_threads(before)
    for y, grad in results[1:]:
        assert np.array_equal(y, results[0][0]) and np.array_equal(grad, results[0][1])


def test_forked_child_computes():
    big = attnnet.Tensor(np.ones((500, 500)))
    (big + big).sum()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if (big + big).sum().item() == 500_000 else 1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(processes.UNDER_ASAN, reason="a fork leaves AddressSanitizer's own lock behind")
@pytest.mark.parametrize("profiled", [False, True])
def test_child_forked_while_another_thread_allocates(profiled):
    """No lock is left behind, locked by a thread that the child does not have."""
    code = """
        import os, signal, sys, threading
        import attnnet
        from attnnet import _core
        profiled = PROFILED
        x = attnnet.Tensor([1.0, 2.0], requires_grad=True)
        def work():
            y = x
            for _ in range(3000):
                y = y.sigmoid()
            while True:  # the walk allocates without the GIL
                y.backward(x, retain_graph=True)
        threading.Thread(target=work, daemon=True).start()
        for i in range(300):
            if profiled:
                _core.profile_start()
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)  # a locked lock: killed
                (x + x).sum()
                os._exit(0)
            status = os.waitpid(pid, 0)[1]
            if status:
                sys.exit(f"child {i} ended with {status}")
            if profiled:
                _core.profile_stop()
        os._exit(0)
    """
    done = run(code.replace("PROFILED", str(profiled)))
    assert done.returncode == 0, done.stderr


def test_a_second_core_in_one_process_is_refused():
    done = run("import sys, attnnet; del sys.modules['attnnet._core']; import attnnet._core")
    assert "ImportError: attnnet._core is loaded already" in done.stderr


def test_subinterpreters_are_refused():
    code = """
        try:
            import _interpreters as sub
        except ImportError:
            import _xxsubinterpreters as sub
        i = sub.create()
        try:
            result = sub.run_string(i, "import attnnet")
            text = str(result)
        except Exception as error:
            text = str(error)
        print(text)
    """
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "interpreter" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range(seed):
    with pytest.raises(ValueError, match=r"expected 0 to 2\*\*64 - 1"):
        attnnet.manual_seed(seed)
    with pytest.raises(TypeError):
        attnnet.manual_seed("zero")


def test_random_draws_repeat_and_resume():
    attnnet.manual_seed(7)
    first = attnnet.random.uniform((100,), -1, 1)
    state = attnnet.get_rng_state()
    second = attnnet.random.normal((3, 50), 0, 2)
    attnnet.set_rng_state(state)
    assert np.array_equal(second, attnnet.random.normal((3, 50), 0, 2))
    attnnet.manual_seed(7)
    assert np.array_equal(first, attnnet.random.uniform((100,), -1, 1))
    assert not np.array_equal(first, attnnet.random.uniform((100,), -1, 1))
