"""Builds the C core: every kernel file once an instruction set, the rest once."""

import os
import platform
import zlib
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path("csrc")
# -g0 undoes Python's own -g: 7 MB that nobody reads, and names of this machine's folders.
# ATTNNET_CFLAGS come later and may say -g again.
COMMON = ["-std=gnu11", "-O3", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno",
          "-fno-trapping-math", "-g0"]
X86 = platform.machine().lower() in ("x86_64", "amd64")
INSTRUCTION_SETS = {"baseline": []}
if X86:
    INSTRUCTION_SETS |= {
        "avx2": ["-mavx2", "-mfma"],
        "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma",
                   "-mprefer-vector-width=512"],
    }
PER_SET = sorted(p for p in ROOT.glob("kernels/*.c") if p.name != "dispatch.c")
ONCE = sorted(p for p in ROOT.glob("*/*.c") if p not in PER_SET)


class BuildCore(build_ext):
    """Compiles kernels/ once an instruction set; rebuilds when any header is newer."""

    def initialize_options(self):
        super().initialize_options()
        self.parallel = os.cpu_count()

    def build_extension(self, ext):
        extra_flags = os.environ.get("ATTNNET_CFLAGS", "")
        flags = COMMON + extra_flags.split()
        macros = [("ATTN_HAVE_X86_SETS", "1")] if X86 else []
        if extra_flags:
            macros.append(("ATTN_CFLAGS", f'" {extra_flags}"'))
        include = self.include_dirs + ext.include_dirs
        # Objects made with other options (for a sanitizer, say) are not these.
        variant = f"{zlib.crc32(extra_flags.encode()):08x}" if extra_flags else ""
        objects = []
        jobs = [(PER_SET, name, flags + extra, [*macros, ("ATTN_ISA", name)])
                for name, extra in INSTRUCTION_SETS.items()]
        jobs.append((ONCE, "common", flags, macros))
        newest_header = max(p.stat().st_mtime for p in ROOT.rglob("*.h"))
        stale = []
        for sources, folder, options, defines in jobs:
            out = Path(self.build_temp) / variant / folder
            for source in sources:
                target = out / source.with_suffix(".o")
                objects.append(str(target))
                newest = max(newest_header, source.stat().st_mtime)
                if self.force or not target.exists() or target.stat().st_mtime < newest:
                    stale.append((source, out, options, defines))
        self._compile_all(stale, include)
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        # One that was linked for a sanitizer may be newer than these objects, and would be kept.
        output.unlink(missing_ok=True)
        # Python's own library folder is not searched: nothing of it is linked.
        self.compiler.linker_so = [word for word in self.compiler.linker_so if "-rpath" not in word]
        link = ["-pthread", *os.environ.get("ATTNNET_LDFLAGS", "").split()]
        self.compiler.link_shared_object(objects, str(output), libraries=["m", "dl"],
                                         extra_postargs=link, target_lang="c")

    def _compile_all(self, stale, include):
        from concurrent.futures import ThreadPoolExecutor

        def compile_one(job):
            source, out, options, defines = job
            self.compiler.compile([str(source)], output_dir=str(out), macros=defines,
                                  include_dirs=include, extra_postargs=options)

        with ThreadPoolExecutor(self.parallel or 1) as pool:
            list(pool.map(compile_one, stale))


setup(
    ext_modules=[
        Extension("attnnet._core", sources=[str(p) for p in ONCE + PER_SET],
                  include_dirs=[numpy.get_include()])
    ],
    cmdclass={"build_ext": BuildCore},
)
