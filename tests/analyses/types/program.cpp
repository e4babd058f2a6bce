// Classes with and without virtual functions, of which tests/analyses/types/compiled.py makes DLLs.
// Every object has its content in the image; its exported `size_…` is the bytes of it.

#if defined(_MSC_VER)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((dllexport))
#endif
#define KEEP(type, name)                                                                                               \
    EXPORT type object_##name;                                                                                         \
    type object_##name;                                                                                                \
    EXPORT int size_##name;                                                                                            \
    int size_##name = sizeof(type);

namespace ns {
struct Point {
    double x, y;
};
struct Node {
    Node *next, *prev;
    Point *where;
    int id;
    union {
        Point *point;
        Node *node;
    };
};
struct Shape {
    virtual int area() { return 1; }
    virtual void draw() {}
    virtual int hash() { return 2; }
    int side = 3;
};
struct Named {
    virtual const char *name() { return "n"; }
    virtual void rename() {}
    virtual int length() { return 4; }
    int used = 1;
};
struct Circle : Shape {
    int area() override { return side * side; }
    Point *centre = nullptr;
};
struct Both : Shape, Named {
    int area() override { return 5; }
    const char *name() override { return "b"; }
    long long more[4]{};
};
template <class T, int N> struct Box : Shape {
    int area() override { return N; }
    T content[N]{};
};
namespace {
struct Hidden : Shape {
    int area() override { return 8; }
    int secret[5]{};
};
} // namespace
// Containers as Visual C++ lays them out; in its debug builds with a proxy before them.
#if defined(DEBUG_LAYOUT)
#define PROXY void *proxy = nullptr;
#else
#define PROXY
#endif
template <class T> struct Vector {
    PROXY T *begin = nullptr, *end = nullptr, *capacity = nullptr;
};
struct List {
    PROXY void *head = nullptr;
    decltype(sizeof(0)) elements = 0;
};
struct Queue : Shape {
    int area() override { return 6; }
    Vector<Point> points;
    List list;
    void *frames[4]{};
};
#if defined(_MSC_VER)
struct Deep : virtual Shape {
    int area() override { return 7; }
    int depth = 9;
};
#endif
} // namespace ns

struct Table {
    ns::Node **rows;
    long long count;
    float *weights;
    ns::Node *spare[2];
    ns::Both *both;
};

KEEP(ns::Shape, Shape)
KEEP(ns::Circle, Circle)
KEEP(ns::Both, Both)
typedef ns::Box<ns::Point, 3> Box3;
KEEP(Box3, Box)
KEEP(ns::Hidden, Hidden)
KEEP(ns::Queue, Queue)
#if defined(_MSC_VER)
KEEP(ns::Deep, Deep)
#endif

EXPORT Table g_table;
Table g_table;
EXPORT ns::Node *g_head;
ns::Node *g_head;
EXPORT ns::Point *g_points;
ns::Point *g_points;
EXPORT ns::Circle *g_circle;
ns::Circle *g_circle;
EXPORT ns::Queue *g_queues[64];
ns::Queue *g_queues[64];
EXPORT ns::Circle *g_circles[512];
ns::Circle *g_circles[512];
EXPORT void *g_records[1024];
void *g_records[1024];
EXPORT int size_Point, size_Node, size_Table;
int size_Point = sizeof(ns::Point), size_Node = sizeof(ns::Node), size_Table = sizeof(Table);

extern "C" int _fltused;
int _fltused;

EXPORT int start(void *, unsigned, void *) {
    ns::Shape *all[] = {&object_Shape, &object_Circle, &object_Both, &object_Box, &object_Hidden, &object_Queue};
    return all[g_table.count % 6]->area() + object_Both.length() + (g_head ? g_head->id : 0) + int(g_points->x);
}
