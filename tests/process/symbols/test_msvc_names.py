"""Decorated class names of Visual C++, with what llvm-undname makes of them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.process.symbols.msvc_names import undecorated

NAMES = [
    ("Foo@", "Foo"),
    ("Foo@ns@", "ns::Foo"),
    ("?$vector@HV?$allocator@H@std@@@std@", "std::vector<int,std::allocator<int> >"),
    (
        "?$basic_string@DU?$char_traits@D@std@@V?$allocator@D@2@@std@",
        "std::basic_string<char,std::char_traits<char>,std::allocator<char> >",
    ),
    (
        "?$map@V?$basic_string@DU?$char_traits@D@std@@V?$allocator@D@2@@std@@HU?$less@V?$basic_string@DU?$char_traits@D@std@@V?$allocator@D@2@@std@@@2@V?$allocator@U?$pair@$$CBV?$basic_string@DU?$char_traits@D@std@@V?$allocator@D@2@@std@@H@std@@@2@@std@",
        "std::map<std::basic_string<char,std::char_traits<char>,std::allocator<char> >,int,std::less<std::basic_string<char,std::char_traits<char>,std::allocator<char> > >,std::allocator<std::pair<std::basic_string<char,std::char_traits<char>,std::allocator<char> > const,int> > >",
    ),
    ("Bar@?A0x1234abcd@", "`anonymous namespace'::Bar"),
    ("?$array@M$02@std@", "std::array<float,3>"),
    ("?$F@$$A6AXHPEAVFoo@@@Z@std@", "std::F<void __cdecl(int,Foo *)>"),
    ("Local@?1??main@@YAHXZ", "`int __cdecl main(void)'::`2'::Local"),
    ("<lambda_1>@?0??f@A@@QEAAHH@Z", "`public: int __cdecl A::f(int)'::`1'::<lambda_1>"),
    ("E@", "E"),
    ("?$X@$0?0$00$0BA@$0?BA@$0A@@", "X<-1,1,16,-16,0>"),
    ("?$Y@PEBDAEAHQEAXPEAPEAX@", "Y<char const *,int &,void *const,void **>"),
    (
        "?$Z@$$QEAV?$vector@HV?$allocator@H@std@@@std@@_N_J_K_W@",
        "Z<std::vector<int,std::allocator<int> > &&,bool,__int64,unsigned __int64,wchar_t>",
    ),
    ("?$P@P8Foo@@EAAHH@Z@", "P<int (__cdecl Foo::*)(int)>"),
    ("?$P@PEQFoo@@H@", "P<int Foo::*>"),
    ("?$Q@$1?f@@YAXXZ@", "Q<&void __cdecl f(void)>"),
    ("?$Q@$1?x@@3HA@", "Q<&int x>"),
    ("?$R@$$BY03H@", "R<int[4]>"),
    ("?$R@$$V@", "R<>"),
    ("?$R@$S@", "R<>"),
    ("<lambda_0123456789abcdef0123456789abcdef>@", "<lambda_0123456789abcdef0123456789abcdef>"),
    ("_Ref_count_base@std@", "std::_Ref_count_base"),
    ("<lambda_2>@?0???0Foo@ns@@QEAA@H@Z", "`public: __cdecl ns::Foo::Foo(int)'::`1'::<lambda_2>"),
    ("<lambda_2>@?0???1Foo@ns@@UEAA@XZ", "`public: virtual __cdecl ns::Foo::~Foo(void)'::`1'::<lambda_2>"),
    (
        "<lambda_2>@?0???RFoo@ns@@QEBA@PEAPEAH0@Z",
        "`public: __cdecl ns::Foo::operator()(int **,int **) const'::`1'::<lambda_2>",
    ),
    (
        "?$_Func_impl_no_alloc@V<lambda_1>@?1??run@A@@QEAAXXZ@XPEAUB@@@std@",
        "std::_Func_impl_no_alloc<`public: void __cdecl A::run(void)'::`2'::<lambda_1>,void,B *>",
    ),
    (
        "?$_Func_base@XAEBV?$vector@HV?$allocator@H@std@@@std@@@std@",
        "std::_Func_base<void,std::vector<int,std::allocator<int> > const &>",
    ),
    ("?$_Ref_count_obj2@V?$X@P6AXPEAX@Z@@@std@", "std::_Ref_count_obj2<X<void (__cdecl *)(void *)> >"),
    ("?$X@QEAY03$$CBD@", "X<char const (*const)[4]>"),
    ("?$X@$$CBH$$CCH$$CDH@", "X<int const,int volatile,int const volatile>"),
    ("?$X@AEAY02H@", "X<int (&)[3]>"),
    ("?$X@$$A8@@EBAHXZ@", "X<int __cdecl(void) const>"),
    ("?$X@$$A8@@GAEHXZ@", "X<int __thiscall(void) &>"),
    ("?$X@P8A@@EHAAHXZ@", "X<int (__cdecl A::*)(void) &&>"),
    ("?$X@$$A6AHHZZ@", "X<int __cdecl(int,...)>"),
    ("?$X@$$A6AXH@_E@", "X<void __cdecl(int) noexcept>"),
    ("X@?A0x12@?A0x13@ns@", "ns::`anonymous namespace'::`anonymous namespace'::X"),
    ("?$T@VFoo@?A0x12@@V12@@", "T<`anonymous namespace'::Foo,`anonymous namespace'::Foo>"),
    ("?$T@$1?m@A@@QEAAXXZ@", "T<&public: void __cdecl A::m(void)>"),
    ("?$T@$E?x@@3HA@", "T<int x>"),
    ("?$T@$$Yv@ns@@@", "T<ns::v>"),
    ("?$T@W4E@ns@@$01@", "T<ns::E,2>"),
    ("Foo@?1??bar@?1??baz@@YAXXZ@YAXXZ", "`void __cdecl `void __cdecl baz(void)'::`2'::bar(void)'::`2'::Foo"),
    ("?$T@PAHPBDAAHPAPAX@", "T<int *,char const *,int &,void **>"),
    ("?$T@P6GXH@Z@", "T<void (__stdcall *)(int)>"),
    ("?$T@P8Foo@@AEHH@Z@", "T<int (__thiscall Foo::*)(int)>"),
    (
        "<lambda_1>@?0??operator()@<lambda_2>@?0??f@@YAXXZ@QEBA@XZ",
        "`public: __cdecl `void __cdecl f(void)'::`1'::<lambda_2>::operator()(void) const'::`1'::<lambda_1>",
    ),
    ("?$T@PEAP6AXXZ@", "T<void (__cdecl **)(void)>"),
    ("?$T@$$T@", "T<std::nullptr_t>"),
    ("?$T@PEIAH@", "T<int *>"),
    ("?$T@PEAY01P6AXXZ@", "T<void (__cdecl * (*)[2])(void)>"),
]
"""The name behind `.?AV`, without the last `@`; as PDBs write it."""

UNLIKE_LLVM = ("T<int *>", "T<`anonymous namespace'::Foo,`anonymous namespace'::Foo>")
"""`__restrict` is left out; a namespace without a name is called so in back references, too."""


@pytest.mark.parametrize(("decorated", "plain"), NAMES)
def test_class_names_are_undecorated(decorated, plain):
    assert undecorated(decorated) == plain


def squeezed(name: str) -> str:
    return re.sub(r"\b(class|struct|union|enum) ", "", name).replace(" ", "")


@pytest.mark.skipif(
    shutil.which("llvm-undname") is None, reason="names are not compared: llvm-undname is not installed"
)
def test_llvm_says_the_same():
    asked = [(decorated, plain) for decorated, plain in NAMES if plain not in UNLIKE_LLVM]
    lines = "".join(f".?AV{decorated}@\n" for decorated, _ in asked)
    out = subprocess.run(["llvm-undname"], input=lines, text=True, capture_output=True, check=False).stdout
    said = dict(re.findall(r"^(\.\?A.*)\n(.*)$", out, re.MULTILINE))
    if not any("RTTI" in one for one in said.values()):
        pytest.skip("names are not compared: this llvm-undname does not know type descriptors")
    for decorated, plain in asked:
        whole = said[f".?AV{decorated}@"].replace(" `RTTI Type Descriptor Name'", "")
        assert squeezed(whole) == squeezed(plain), decorated


@pytest.mark.parametrize(
    "name",
    [
        "", "@", "?$", "?$box@H@ns", "?$box@9@", "9@", "?$box@$0@", "?$box@Y0@@", "Foo@?1", "Foo@?1?", "Foo@?1??f@", "?$box@$$Z",
        "?$box@" * 5000, "?$a@PE" + "APE" * 40000, "?$a@" + "P6" * 900, "?$box@Y" + "P" * 30 + "@@", "?$box@$2@", "Foo@@@bar",
        "?$x@V" + "?$x@V" * 60 + "y@" + "@@" * 60,
    ],
)  # fmt: skip
def test_what_has_another_form_stays_as_it_is(name):
    assert undecorated(name) == name


def test_repeated_parts_do_not_grow_without_bound():
    name = "?$a@P6AX" + "P6AXV?$b@H@@0@Z" * 1 + "0" * 40000 + "@Z@"
    assert len(undecorated(name)) < 1 << 17
    assert undecorated("?$a@P6AX" + "PEAVlongname@@" + "0" * 200000 + "@Z@").startswith("?$a@")


LETTERS = st.text("?$@ABCDEHPQUVXYZ0123_4W6812abc<>", max_size=80)


@pytest.mark.property
@given(LETTERS, st.sampled_from([decorated for decorated, _ in NAMES]), st.integers(0, 60))
def test_any_letters_are_a_name_or_stay(letters, known, at):
    for name in (letters, known[:at] + letters + known[at:], known[at:], known[:at]):
        assert isinstance(undecorated(name), str)
