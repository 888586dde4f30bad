// The Markdown of the page, as a tree: it needs neither a browser nor the stack.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { MarkdownParser, parse } from '../../web/markdown.js';
import { safeAddress } from '../../web/markdown_address.js';
import { parseInline, runs } from '../../web/markdown_inline.js';
import { HOSTILE } from './hostile.js';

const WEB = new URL('../../web/', import.meta.url);

const EVERYTHING = `# A *heading*

A paragraph
of two lines, with **bold**, \`code\` and https://example.com/a.

- one
- two
  - three
    1. four

       still four
- [x] done
- [ ] not yet

> quoted
> > twice
lazy

| a | b |
|---|:-:|
| 1 | \`2\` |
| 3 | 4 \\| 5 |

~~~js title
const a = 1;

  b();
~~~

   \`\`\`
   indented
     fence
   \`\`\`
***
Underlined
---
1914. A year
* * *
1) other
2) list\r
\r
The end of it: 水 👩‍👩‍👧 [link](https://example.com "title") and an open \`\`\`
\`\`\`
unclosed`;

/** A node in short: what it is, and what it has. */
function short({ type, level, language, text, children, cells }) {
    const name = type + (level ?? '') + (language ? `:${language}` : '');
    return [name, ...(cells ?? children?.map(short) ?? (text === undefined ? [] : [text]))];
}

const tree = (text) => parse(text).map(short);
const inline = (text, options) => parseInline(text, options).map(function node(each) {
    const about = each.href ? [each.href] : [];
    return each.type === 'text' ? each.text : [each.type, ...about, ...(each.children?.map(node) ?? (each.text ? [each.text] : []))];
});

describe('blocks', () => {
    for (const [text, expected] of [
        ['One\ntwo\n\nthree', [['paragraph', 'One\ntwo'], ['paragraph', 'three']]],
        ['# One\n### Two ##\n#no', [['heading1', 'One'], ['heading3', 'Two'], ['paragraph', '#no']]],
        ['One\n===\nTwo\n---', [['heading1', 'One'], ['heading2', 'Two']]],
        ['One\n\n---\n***', [['paragraph', 'One'], ['rule'], ['rule']]],
        ['```py\na\n\n b\n```\nc', [['code:py', 'a\n\n b'], ['paragraph', 'c']]],
        ['````\n```\n````', [['code', '```']]],
        ['```\nopen', [['code', 'open']]],
        ['- a\n- b\n\nc', [['list', ['item', ['paragraph', 'a']], ['item', ['paragraph', 'b']]], ['paragraph', 'c']]],
        ['- a\n  - b\n- c', [
            ['list', ['item', ['paragraph', 'a'], ['list', ['item', ['paragraph', 'b']]]], ['item', ['paragraph', 'c']]],
        ]],
        ['1. a\n   ```\n   b\n   ```\n2. c', [
            ['list', ['item', ['paragraph', 'a'], ['code', 'b']], ['item', ['paragraph', 'c']]],
        ]],
        ['- a\n* b', [['list', ['item', ['paragraph', 'a']]], ['list', ['item', ['paragraph', 'b']]]]],
        ['In\n1914. It began', [['paragraph', 'In\n1914. It began']]],
        ['> a\nb\n\nc', [['quote', ['paragraph', 'a\nb']], ['paragraph', 'c']]],
        ['> - a\n> - b', [['quote', ['list', ['item', ['paragraph', 'a']], ['item', ['paragraph', 'b']]]]]],
        ['a|b\n-|-\n1|2\n\nc', [['table', ['row', 'a', 'b'], ['row', '1', '2']], ['paragraph', 'c']]],
        ['So:\n| a |\n| --- |\n| `|` \\| |', [['paragraph', 'So:'], ['table', ['row', 'a'], ['row', '`']]]],
        ['| a | b |\n| --- |', [['paragraph', '| a | b |\n| --- |']]],
        ['<b>no</b>\n\n    indented', [['paragraph', '<b>no</b>'], ['paragraph', 'indented']]],
        ['one\r\n\r\ntwo\r\n', [['paragraph', 'one'], ['paragraph', 'two']]],
    ]) {
        test(JSON.stringify(text), () => assert.deepEqual(tree(text), expected));
    }

    test('items have marks, numbers and space between them', () => {
        const [list] = parse('3. a\n4. b');
        assert.deepEqual([list.ordered, list.start, list.loose], [true, 3, false]);
        assert.equal(parse('- a\n\n- b')[0].loose, true);
        assert.deepEqual(parse('- [ ] a\n- [x] b\n- c')[0].children.map((each) => each.checked), [false, true, null]);
    });
});

describe('text', () => {
    for (const [text, expected] of [
        ['a **b *c* d** e', ['a ', ['strong', 'b ', ['emphasis', 'c'], ' d'], ' e']],
        ['***both***', [['emphasis', ['strong', 'both']]]],
        ['~~gone~~ ~not~', [['deleted', 'gone'], ' ~not~']],
        ['snake_case_word, 2 * 3 * 4', ['snake_case_word, 2 * 3 * 4']],
        ['_a_ __b__', [['emphasis', 'a'], ' ', ['strong', 'b']]],
        ['`a*b*` `` ` ``', [['code', 'a*b*'], ' ', ['code', '`']]],
        ['\\*a\\* \\q', ['*a* \\q']],
        ['one  \ntwo\\\nthree', ['one', ['break'], 'two', ['break'], 'three']],
        ['[a *b*](https://x.example/y "t")', [['link', 'https://x.example/y', 'a ', ['emphasis', 'b']]]],
        ['[a](<https://x.example/y z>)', [['link', 'https://x.example/y%20z', 'a']]],
        ['[a](https://x.example/(b))', [['link', 'https://x.example/(b)', 'a']]],
        ['![a](https://x.example/y.png)', [['image', 'https://x.example/y.png', 'a']]],
        ['<https://x.example> <me@x.example>', [
            ['link', 'https://x.example/', 'https://x.example'], ' ', ['link', 'mailto:me@x.example', 'me@x.example'],
        ]],
        ['See https://x.example/a_b_(c), too.', ['See ', ['link', 'https://x.example/a_b_(c)', 'https://x.example/a_b_(c)'], ', too.']],
        ['[a](javascript:alert(1)) [b](/c) [d](#e)', ['[a](javascript:alert(1)) [b](/c) [d](#e)']],
        ['[[a](https://x.example)](https://y.example)', ['[', ['link', 'https://x.example/', 'a'], '](', ['link', 'https://y.example/', 'https://y.example'], ')']],
        ['_a _b d* e_ f_ *h*', [['emphasis', 'a ', ['emphasis', 'b d* e'], ' f'], ' ', ['emphasis', 'h']]],
        ['*a [b* c](https://x.example)', ['*a ', ['link', 'https://x.example/', 'b* c']]],
        ['&lt;b&gt; &amp; &#65; &bogus;', ['<b> & A &bogus;']],
    ]) {
        test(JSON.stringify(text), () => assert.deepEqual(inline(text), expected));
    }

    test('what is open is drawn as if it were closed, while more may come', () => {
        assert.deepEqual(inline('a **b `c', { isOpen: true }), ['a ', ['strong', 'b ', ['code', 'c']]]);
        assert.deepEqual(inline('a **b `c'), ['a **b `c']);
    });

    test('an address may be followed with http, https and mailto alone', () => {
        assert.equal(safeAddress('HTTPS://Example.com'), 'https://example.com/');
        assert.equal(safeAddress('mailto:me@example.com'), 'mailto:me@example.com');
        for (const each of ['javascript:alert(1)', ' java\tscript:alert(1)', 'data:text/html,a', 'vbscript:a', 'file:///a',
            'blob:https://example.com/a', '//example.com', '/a', 'a', '', `https://example.com/${'a'.repeat(3000)}`]) {
            assert.equal(safeAddress(each), null, each);
        }
    });
});

describe('cuts', () => {
    test('a text has the same tree wherever it is cut, and however often the tree was asked for', () => {
        const whole = JSON.stringify(parse(EVERYTHING));
        for (let at = 0; at <= EVERYTHING.length; at += 1) {
            const parser = new MarkdownParser();
            for (const part of [EVERYTHING.slice(0, at), EVERYTHING.slice(at)]) {
                parser.feed(part);
                void parser.blocks;
            }
            parser.flush();
            assert.equal(JSON.stringify(parser.blocks), whole, `cut at ${at}`);
        }
        const single = new MarkdownParser();
        for (let at = 0; at < EVERYTHING.length; at += 1) {
            single.feed(EVERYTHING[at]);
            void single.blocks;
        }
        single.flush();
        assert.equal(JSON.stringify(single.blocks), whole);
    });

    test('what is closed never changes again', () => {
        const parser = new MarkdownParser();
        const closed = new Map();
        const look = (node) => {
            if (node.closed && !closed.has(node)) closed.set(node, JSON.stringify(node));
            node.children?.forEach(look);
        };
        for (const each of EVERYTHING) {
            parser.feed(each);
            parser.blocks.forEach(look);
        }
        parser.flush();
        assert.ok(closed.size > 20);
        for (const [node, before] of closed) assert.equal(JSON.stringify(node), before);
    });

    test('a long text is cut into runs by what is before each cut', () => {
        const text = `${'word '.repeat(5000)}${'x'.repeat(20_000)}`;
        assert.equal(runs(text).join(''), text);
        assert.ok(runs(text).every((run) => run.length <= 8001));
        const part = runs(text.slice(0, 30_000));
        assert.deepEqual(runs(text).slice(0, part.length - 1), part.slice(0, -1));
    });
});

describe('nothing takes long', () => {
    const MEGABYTE = 1_000_000;
    const fill = (text) => text.repeat(Math.ceil(MEGABYTE / text.length));
    for (const text of ['a', ' ', '>', '> ', '- ', '* a ', '1. ', '#', '# ', '`', '``` ', '~', '*', '**a ', '_a', '*a_ ', '[', '[a](',
        '![', '](', '<', '<a', '[a](<b', '|', '|-', '| a ', ':', '://', 'http://', '&', '&#', '\\', '(', '[a](https://b.c "', 'a `b ``c ',
        '*a **b ', '~~a ', 'https://a.b)', '\t', '\0', '水', '= ', '-', '+ [x] ', '> - ', '[](  ']) {
        test(`a line of ${JSON.stringify(text)}, a million characters long`, () => takesSeconds(fill(text)));
        test(`as many lines of ${JSON.stringify(text)}`, () => takesSeconds(fill(`${text}\n`)));
    }
    test('lists in each other without end', () => takesSeconds(Array.from({ length: 1400 }, (_, n) => `${' '.repeat(n)}- a`).join('\n')));
    test('a table of a million bars', () => takesSeconds(`${'|'.repeat(500_000)}\n${'|-'.repeat(250_000)}\n${fill('|')}`));

    /** Parse it all, what stands within its blocks too. */
    function takesSeconds(text) {
        const began = process.cpuUsage(); // other processes may have the processor too
        let deepest = 0;
        const look = (node, depth) => {
            deepest = Math.max(deepest, depth);
            for (const each of node.cells ?? []) parseInline(each);
            if (node.text && node.type !== 'code') for (const run of runs(node.text)) parseInline(run).forEach((each) => within(each, 0));
            node.children?.forEach((each) => look(each, depth + 1));
        };
        const within = (node, depth) => {
            assert.ok(depth <= 18, 'deep text');
            node.children?.forEach((each) => within(each, depth + 1));
        };
        for (const each of parse(text)) look(each, 0);
        assert.ok(deepest <= 40, `${deepest} deep`);
        const { user, system } = process.cpuUsage(began);
        const seconds = (user + system) / 1e6;
        assert.ok(seconds < 5, `${seconds} s`);
    }

    test('a reply costs in proportion to its length, in pieces as they come', () => {
        const cost = (count) => {
            const parser = new MarkdownParser();
            const began = process.cpuUsage();
            for (let index = 0; index < count; index += 1) {
                parser.feed(`- item ${index} with **some** words`);
                void parser.blocks;
                parser.feed(' and the rest of the line\n');
                void parser.blocks;
            }
            return process.cpuUsage(began).user / 1000;
        };
        cost(2000);
        const [less, more] = [cost(4000), cost(32_000)];
        assert.ok(more < less * 8 * 4 + 200, `${less} ms and then ${more} ms`);
    });
});

test('no text of the hostile ones has a link that is not safe', () => {
    const look = (nodes) => {
        for (const node of nodes) {
            if (node.href) assert.match(node.href, /^(https?:\/\/|mailto:)/);
            look(node.children ?? []);
        }
    };
    const blocks = (nodes) => nodes.forEach((node) => {
        if (node.language) assert.match(node.language, /^[\w+#.-]+$/);
        if (node.text) look(parseInline(node.text));
        node.cells?.forEach((cell) => look(parseInline(cell)));
        blocks(node.children ?? []);
    });
    assert.ok(HOSTILE.length >= 60);
    for (const each of HOSTILE) blocks(parse(each));
});

test('nothing on the page is ever made of HTML', async () => {
    for (const name of await readdir(WEB)) {
        if (!name.endsWith('.js')) continue;
        const source = await readFile(new URL(name, WEB), 'utf8');
        const found = /innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|setHTML|DOMParser|srcdoc|\beval\b|new Function/.exec(source);
        assert.equal(found?.[0], undefined, name);
    }
});
