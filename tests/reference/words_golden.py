"""Writes tests/data/words.txt: words of sentences of our own by spaCy's blank English tokenizer and by uniseg (Unicode 16), sentences by spaCy's
sentencizer. usage: words_golden.py > tests/data/words.txt"""
import itertools
import spacy
import uniseg
from uniseg.wordbreak import words

nlp = spacy.blank("en")
nlp.add_pipe("sentencizer")
texts = """The quick brown fox can't jump 32.3 feet, right?
I'm sure you'll say it isn't so; they'd've known, we shouldn't've gone.
Dont forget: im, id, ive, youre, theyll, wed, shed, hell, well, were, its, cannot, gonna, gotta, let's, c'mon, y'all.
“Don’t you,” she said, ‘ever’ do that’s done. It’s James’s and the dogs’ fault.
Mr. Smith and Mrs. Jones of Smith & Co. met Dr. No at 10am, 11 p.m. and 12p.m. in St. Paul, Minn.
He holds a Ph.D. from the U.S., not the U.K. or the E.U. Call J.R.R. Tolkien, i.e. the author (e.g. of books).
See http://example.org/a/b?c=d#e, www.example.com. Or write to some.one@example.co.uk; ftp://user:pw@host.net:21/file.
Hosts: example.com:8080/x, 10.0.0.1, 93.184.216.34:80, 192.168.0.1/24, 256.1.1.1, a..b.com, foo.Bar, foo_bar.com, -x.com, x-.com.
It costs $5, US$7, C$8, 5$, 6€, £3.50, 10%, 100 % or 3½; 5kg, 10km², 3m/s, 20°C. and 68°F. at 7GB.
Ranges 1-2, 3–4, 5—6, 1+1, 2*3, 2^8, -1, +1, +x, x+y, 1,000.50, 1.000,50 and 3/4.
A well-known state-of-the-art end--of—line ––dash~tilde a---b a----b - -- --- x- -y.
Wait... what?! No.. way… yes…… ok....
word:) word :) (word) :-( ;-) :D xD <3 </3 ^_^ o_O :'( :’( (: 8) (8) 10.8) =) >:( ¯\\(ツ)/¯ (╯°□°）╯︵┻━┻
vitamin-a. vitamin-b, plan-b.) foo:( ( bar:)) baz:P "a." 'b.' (c.) d.e. x.y.z
She said: "Go!" He left. (Why?) [12] {a} <b> a<b a>b a=b a:b a/b and/or w/o C++ c# .NET #tag @user
rock'n'roll 'em 'twas 'cause o'clock ma'am doin' nothin' ol' 's 'S ''quoted'' `code` ``tex''
path/to/file.txt C:\\Windows\\x.exe ~/bin ./run.sh a.b.c() foo->bar x[1] y{2} f(x,y) a,b 1,a a,1
café naïve Straße ÉCOLE.École Москва.Город город.Город αβγ.Αβγ 日本語。テスト、です！ 한국어 입니다. ไทย ქართული հայերեն
हिन्दी वाक्य। العربية، نص؟ עברית "ציטוט" ትግርኛ። বাংলা। தமிழ் తెలుగు ಕನ್ನಡ සිංහල
emoji 😀😀 👍🏽 👩‍👩‍👧 🇩🇪🇫🇷 ☺️ ™ © ® ° № ★word★ →arrow a→b ✓done ½ ¼x
Hello.  World\\n\\nNew para.\\n ! Odd? Yes! \\tTab. No...  Then. "Quote." Next.) And 'so on.' End
 leading blank
trailing blank 
two  blanks,\\n\\n two newlines\\r\\nand\\tmore\u00a0hard\u2003wide
U.S.A. u.s.a. US. Us. A.B a.B A.b ÄÖ. äö. ÄÖ.x B. C.D. 9. 9.9. a.9 9.a
1st 2nd 3rd 4th 20s 1990's '90s 90' 5" 6'2" 7' 8x10 4x4 3D 2D. MP3. H2O, CO₂ m² x³
can't've ain't aren't wasn't weren't hasn't haven't daren't needn't oughtn't shan't won't mayn't mustn't mightn't
who's what's where'll why'd how're when've there'd've that'll this's these'd those've whos whatll
a@b a@b.c a@b.co a.b@c.d.ef @b.co x@ mailto:a@b.org //a.b/c a://b.co ab://b.co a+b-c.d://host.org/?q
“nested ‘quotes’ here” «guillemets» „low“ 「kagi」『double』（paren）【lens】《title》〈angle〉
...leading dots .5 .. . … -… a…b a...b 1...2 A..B
x.,y x,.y x;y x!y x?y x&y x*y x_y x#y x$y x%y x^y x|y x\\\\y x'y x"y x`y x+y
can\\tnot  can not cannot, Cannot. "cannot" (cannot) can-not
100km/h 5µg 20hPa 3PB 4Tb 5TB 6T 7G 8M 9K 1in 2ft 3lb 4oz 5yd 6kmh 7mph 8г 9кг 5м/с
don't. won't, can't! isn't? (don't) "won't" can't-do shouldn't...
Mt. Everest, Ala., Ariz., Calif., Conn., Fla., Ill., ill., Inc.) Corp., Ltd.; vs. v.s. Prof. Messrs. No. fig. etc. pp. 3-5
O.K. o.k. p.m., a.m.; 3a.m. 4pm. 13pm 0am 12am) (1am
İstanbul ǅ ǆ ŉ ﬁ ﬃ ß ſ ª º µ Ω Å K
\u1e14\u1e2a a\u0301 e\u0301. o\u0308-u x\u200dy x\u00ady \ufeffbom z\u200b
'=( (= =D ;D :1 :3 =3 :0 0_0 O.o o.0 V.V v_v -_- -__- ._. >.< <.< ;_; @_@ (^_^) (-_-) (¬_¬) ಠ_ಠ ><(((*>
°c. °K. 5°C. x°f. \\") <space> \\\\t \\\\n -- —
""".split("\n")
affixes = ["(", '"', "'", "...", "-", "$", "“", "#"]
middles = ["word", "e.g.", "can't", "a-b", "5km", "U.S", "x.org", "8"]
ends = [")", ".", ",", "...", "'s", "?!", ".)", "”", ":)", "%"]
for k, (a, m) in enumerate(itertools.product(affixes, middles)):
    texts.append(" ".join(a + m + e for e in (ends[k % 10], ends[(k + 3) % 10], ends[(k + 7) % 10] + ends[k % 7])))


def escape(s):
    return s.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


print("# Made by tests/reference/words_golden.py with spaCy %s and uniseg %s; do not edit." % (spacy.__version__, uniseg.__version__))
for t in texts:
    if not t:
        continue
    t = t.replace("\\\\", "\0").replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").replace("\0", "\\")
    doc = nlp(t)
    print("text " + escape(t))
    print("en " + " ".join(escape(w.text) for w in doc if w.text.strip()))
    print("uax29 " + " ".join(escape(w).replace(" ", "\\s") for w in words(t) if w.strip()))
    print("sentences " + " ".join(escape(s.text.strip()).replace(" ", "\\s") for s in doc.sents if s.text.strip()))
