/* Objects of C++, and the ways in which they are held: many by a pointer into their middle.
 *
 *   case           keep         lose         what is special
 *   array          reachable    definite     new T[n], whose count lies before the elements
 *   objects        reachable    definite     new T[n] with virtual functions
 *   second_base    reachable    definite     by a pointer to its second base class
 *   virtual_base   reachable    definite     by a pointer to its virtual base class
 *   plain_base     reachable~possible definite by a pointer to a base class without virtual functions
 *   member         reachable~possible definite by a pointer to a member
 *   string         reachable    definite     std::string
 *   vector         reachable    definite     std::vector
 *   deque          reachable    indirect     std::deque, through its map of blocks
 *   list           reachable    definite     std::list, a ring through its head
 *   map            reachable    definite     std::map
 *   unordered_map  reachable    definite     std::unordered_map, through the node before; its buckets point into the map
 *   function       reachable    definite     std::function with what it captured
 *   unique         reachable    definite     std::unique_ptr with a virtual destructor
 *   shared         reachable    definite     std::make_shared
 *   aliased        reachable    definite     a std::shared_ptr to a member
 *   weak           reachable    definite     a std::weak_ptr, whose object is gone and whose block is not
 *   shared_cycle   reachable    cycle        two objects with a std::shared_ptr to each other
 *   exception      reachable    definite     a std::exception_ptr, which points behind the runtime's header
 *   aligned_new    reachable    definite     new of a type with an alignment of 64
 *   static_object  freed        definite     a static std::vector, which its destructor frees
 *   thread_local_object freed   definite     a thread_local std::vector of main's thread
 */
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "twins.h"

namespace {

/* So many bytes that the block of a node or object with a few words of its own has the subject's size. */
template <int own> struct Filling {
    char bytes[SIZE - own];
    Filling() { memset(bytes, 0, sizeof bytes); }
    Filling(int) : Filling() {}
};

/* Where the container of a case lives; it is never destroyed. */
alignas(16) unsigned char place[256];

/* Makes a container in `place`, or in memory that is lost with its content forgotten. */
template <class T, class... Of> T &container(Of &&...of) { return *new (place) T(std::forward<Of>(of)...); }
AWAY void forget_unless_kept() {
    if (keeps) return;
    memset(place, 0, sizeof place);
    __asm__ volatile("" ::"r"(place) : "memory");
}
template <class T> AWAY void hold(T *pointer) { *(T *volatile *)&slot = keeps ? pointer : nullptr; }

struct Counted {
    char bytes[17];
    Counted() { memset(bytes, 1, sizeof bytes); }
    ~Counted() { *(volatile char *)bytes = 0; }
};
AWAY void array() { hold(new Counted[457]); }

struct Virtual {
    uint64_t number = 3;
    virtual ~Virtual() { *(volatile uint64_t *)&number = 0; }
};
AWAY void objects() { hold(new Virtual[486]); }

struct Second {
    uint64_t number = 5;
    virtual ~Second() { *(volatile uint64_t *)&number = 0; }
};
struct Plain {
    uint64_t number = 7;
};
struct Both : Virtual, Second, Plain {
    Filling<32> filling;
};
AWAY void second_base() { hold<Second>(new Both); }
AWAY void plain_base() { hold<Plain>(new Both); }
AWAY void member() { hold(&(new Both)->filling); }

struct Inheriting : virtual Second {
    Filling<24> filling;
    virtual void work() { *(volatile uint64_t *)&number = 1; }
};
AWAY void virtual_base() { hold<Second>(new Inheriting); }

AWAY void string() { container<std::string>(SIZE - 1, 'x'), forget_unless_kept(); }
AWAY void vector() { container<std::vector<char>>(SIZE), forget_unless_kept(); }
AWAY void deque() { container<std::deque<Filling<0>>>(1), forget_unless_kept(); }
AWAY void list() {
    container<std::list<Filling<16>>>(1);
    forget_unless_kept();
}
AWAY void map() { container<std::map<int, Filling<32>>>()[1], forget_unless_kept(); }
AWAY void unordered_map() { container<std::unordered_map<int, Filling<0>>>()[1], forget_unless_kept(); }
AWAY void function() {
    Filling<0> captured;
    container<std::function<int()>>([captured] { return captured.bytes[5]; });
    forget_unless_kept();
}

struct Filled : Virtual {
    Filling<16> filling;
};
AWAY void unique() { container<std::unique_ptr<Virtual>>(new Filled), forget_unless_kept(); }
AWAY void shared() { container<std::shared_ptr<Filling<16>>>(std::make_shared<Filling<16>>()), forget_unless_kept(); }
AWAY void aliased() {
    auto whole = std::make_shared<Filling<16>>();
    container<std::shared_ptr<char>>(whole, whole->bytes + 4000);
    forget_unless_kept();
}
AWAY void weak() { container<std::weak_ptr<Filling<16>>>(std::make_shared<Filling<16>>()), forget_unless_kept(); }

struct Friend {
    std::shared_ptr<Friend> other;
    Filling<32> filling;
};
AWAY void shared_cycle() {
    auto &one = container<std::shared_ptr<Friend>>(std::make_shared<Friend>());
    struct Small {
        std::shared_ptr<Friend> back;
    };
    auto two = std::make_shared<Small>();
    two->back = one;
    one->other = std::shared_ptr<Friend>(two, one.get());
    two.reset();
    forget_unless_kept();
}

AWAY void exception() {
    container<std::exception_ptr>(std::make_exception_ptr(Filling<128>()));
    forget_unless_kept();
}

struct alignas(64) Line {
    char bytes[SIZE / 64 * 64 + 64];
};
static_assert(sizeof(Line) == 7808);
AWAY void aligned_new() { hold(new Line); }

AWAY void static_object() {
    static std::vector<char> held;
    held.resize(SIZE);
    if (!keeps) memset((void *)&held, 0, sizeof held);
}
AWAY void thread_local_object() {
    thread_local std::vector<char> held;
    held.resize(SIZE);
    if (!keeps) memset((void *)&held, 0, sizeof held);
}

} // namespace

PROGRAMS({"array", array}, {"objects", objects}, {"second_base", second_base}, {"virtual_base", virtual_base},
         {"plain_base", plain_base}, {"member", member}, {"string", string}, {"vector", vector}, {"deque", deque},
         {"list", list}, {"map", map}, {"unordered_map", unordered_map}, {"function", function}, {"unique", unique},
         {"shared", shared}, {"aliased", aliased}, {"weak", weak}, {"shared_cycle", shared_cycle},
         {"exception", exception}, {"aligned_new", aligned_new}, {"static_object", static_object},
         {"thread_local_object", thread_local_object})
