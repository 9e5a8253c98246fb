// Four threads fill maps of strings and hand every second entry to the next thread; what is printed depends on nothing
// but the program. A real program's load for the test that output and status stay as they are.
#include <cstdio>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int THREADS = 4;
constexpr int ENTRIES = 20000;

struct Inbox {
    std::mutex lock;
    std::vector<std::string> texts;
};

std::size_t work(int self, std::vector<Inbox> &inboxes) {
    std::map<int, std::string> entries;
    std::size_t length = 0;
    for (int i = 0; i < ENTRIES; i++) {
        std::string text = std::string(20 + i % 50, static_cast<char>('a' + self)) + std::to_string(i);
        length += text.size();
        if (i % 2 == 0) {
            entries[i] = text;
        } else {
            Inbox &next = inboxes[(self + 1) % THREADS];
            std::lock_guard<std::mutex> guard(next.lock);
            next.texts.push_back(std::move(text));
        }
    }
    return length;
}

} // namespace

int main() {
    std::vector<Inbox> inboxes(THREADS);
    std::vector<std::size_t> lengths(THREADS);
    std::vector<std::thread> threads;
    for (int i = 0; i < THREADS; i++) threads.emplace_back([&, i] { lengths[i] = work(i, inboxes); });
    for (std::thread &thread : threads) thread.join();
    std::size_t handed_over = 0;
    for (const Inbox &inbox : inboxes)
        for (const std::string &text : inbox.texts) handed_over += text.size();
    std::printf("%zu %zu\n", std::accumulate(lengths.begin(), lengths.end(), std::size_t{0}), handed_over);
    return 0;
}
