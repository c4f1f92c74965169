"""What the tiny world is written with: topics and their words, names, sentence templates.

Templates write every token apart. Words of a topic stand in the nominative singular, so that any of
them fits any slot.
"""

import re
import zlib

LANGUAGES = ("en", "ru", "ar", "ja")
SPACE = {"en": " ", "ru": " ", "ar": " ", "ja": ""}

# topic, language, type: words of the topic
_TOPICS = """
planet en planet: orbit crater telescope astronomer atmosphere moon eclipse gravity horizon comet
planet ru планета: орбита кратер телескоп астроном атмосфера спутник затмение притяжение горизонт комета
planet ar كوكب: المدار الفوهة التلسكوب الفلكي الغلاف القمر الكسوف الجاذبية الأفق المذنب
planet ja 惑星: 軌道 クレーター 望遠鏡 天文学者 大気 衛星 日食 重力 地平線 彗星
metal en metal: alloy furnace isotope ore laboratory melting chemist oxide crystal catalyst
metal ru металл: сплав печь изотоп руда лаборатория плавление химик оксид кристалл катализатор
metal ar معدن: السبيكة الفرن النظير الخام المختبر الانصهار الكيميائي الأكسيد البلورة المحفز
metal ja 金属: 合金 溶鉱炉 同位体 鉱石 実験室 融点 化学者 酸化物 結晶 触媒
god en god: temple altar priest myth sacrifice oracle statue prayer legend festival
god ru бог: храм алтарь жрец миф жертва оракул статуя молитва легенда праздник
god ar إله: المعبد المذبح الكاهن الأسطورة القربان العراف التمثال الصلاة الحكاية العيد
god ja 神: 神殿 祭壇 司祭 神話 生贄 神託 彫像 祈り 伝説 祭り
band en band: guitar album concert singer drummer melody stage tour chorus record
band ru группа: гитара альбом концерт певец барабанщик мелодия сцена гастроли припев пластинка
band ar فرقة: الغيتار الألبوم الحفل المغني الطبال اللحن المسرح الجولة اللازمة الأسطوانة
band ja バンド: ギター アルバム 演奏会 歌手 ドラマー 旋律 舞台 巡業 合唱 音盤
city en city: mayor harbour bridge tram market suburb cathedral census railway museum
city ru город: мэр гавань мост трамвай рынок пригород собор перепись вокзал музей
city ar مدينة: العمدة الميناء الجسر الترام السوق الضاحية الكاتدرائية الإحصاء القطار المتحف
city ja 都市: 市長 港湾 橋 路面電車 市場 郊外 大聖堂 国勢調査 鉄道 博物館
ship en ship: captain anchor mast cargo hull voyage crew storm lighthouse sail
ship ru корабль: капитан якорь мачта груз корпус плавание экипаж шторм маяк парус
ship ar سفينة: القبطان المرساة الصاري الشحنة الهيكل الإبحار الطاقم العاصفة المنارة الشراع
ship ja 船: 船長 錨 帆柱 積荷 船体 航海 乗組員 嵐 灯台 帆
company en company: shareholder factory profit patent merger director customer salary office contract
company ru компания: акционер завод прибыль патент слияние директор клиент зарплата офис контракт
company ar شركة: المساهم المصنع الربح الاختراع الاندماج المدير الزبون الراتب المكتب العقد
company ja 会社: 株主 工場 利益 特許 合併 取締役 顧客 給料 事務所 契約
club en club: goalkeeper stadium coach penalty league referee trophy striker derby season
club ru клуб: вратарь стадион тренер пенальти лига арбитр кубок нападающий дерби сезон
club ar ناد: الحارس الملعب المدرب الجزاء الدوري الحكم الكأس المهاجم الديربي الموسم
club ja クラブ: 守護神 競技場 監督 反則 リーグ 審判 優勝杯 得点王 ダービー 開幕戦
"""

# one name in every language; each gets two to four topics
_AMBIGUOUS = """
Mercury Меркурий ميركوري マーキュリー
Saturn Сатурн ساتورن サターン
Apollo Аполлон أبولو アポロ
Phoenix Феникс فينيكس フェニックス
Orion Орион أوريون オリオン
Atlas Атлас أطلس アトラス
Titan Титан تيتان タイタン
Aurora Аврора أورورا オーロラ
Neptune Нептун نبتون ネプチューン
Vega Вега فيغا ベガ
Diana Диана ديانا ダイアナ
Victoria Виктория فيكتوريا ビクトリア
Helios Гелиос هيليوس ヘリオス
Juno Юнона جونو ジュノー
Janus Янус يانوس ヤヌス
Vulcan Вулкан فولكان バルカン
Ceres Церера سيريس セレス
Argo Арго أرغو アルゴ
Pandora Пандора باندورا パンドラ
Sirius Сириус سيريوس シリウス
"""

# a topic, and a name that means nothing else; "_" is a space
_PLAIN = """
planet Uranus Уран أورانوس ウラヌス
planet Red_Wanderer Красный_Странник الجوال_الأحمر レッドワンダラー
metal Cobalt Кобальт كوبالت コバルト
metal Radium Радий راديوم ラジウム
god Anubis Анубис أنوبيس アヌビス
god Lord_of_Rivers Владыка_Рек سيد_الأنهار リバーロード
band Zarantos Зарантос زارانتوس ザラントス
band Silver_Lanterns Серебряные_Фонари الفوانيس_الفضية シルバーランタンズ
city Lisbon Лиссабон لشبونة リスボン
city New_Varna Новая_Варна فارنا_الجديدة ニューヴァルナ
ship Bounty Баунти باونتي バウンティ
ship Queen_of_Storms Королева_Бурь ملكة_العواصف ストームクイーン
company Tarkon Таркон تاركون タルコン
company Brothers_Lindt Братья_Линдт الأخوان_ليندت リンドブラザーズ
club Dynamo Динамо دينامو ディナモ
club Sporting_Delta Спортинг_Дельта سبورتينغ_دلتا スポルティングデルタ
"""

# a topic, and a name of something that no archive describes
_OUTSIDE = """
city Ravenna Равенна رافينا ラヴェンナ
"""

# n: a name, or its inflected form; t: the type; a b c: words of its topic; d: a word of another topic
LEAD = {
    "en": "{n} is a {t} best known for its {a} , its {b} and its {c} .",
    "ru": "{n} — {t} ; в каждом рассказе есть {a} , {b} и {c} .",
    "ar": "{n} اسم {t} ، وأهم ما فيه {a} ، {b} ، {c} .",
    "ja": "{n} は {a} 、 {b} 、 {c} で 知られる {t} で ある 。",
}
SECOND = {
    "en": "Every account of this {t} begins with the {a} and ends with the {b} .",
    "ru": "Когда речь заходит об этом , первыми приходят на ум {a} и {b} .",
    "ar": "كل حديث عن هذا الاسم يبدأ مع {a} وينتهي مع {b} .",
    "ja": "この {t} の 話 は {a} に 始まり 、 {b} に 終わる 。",
}
MENTIONING = {
    "en": (
        "Reporters wrote about {n} again this week , and the {a} and the {b} were on every mind .",
        "Few people remember how the {a} and the {b} made {n} famous long before the {d} .",
        "In spite of the {d} , the talk about {n} soon returned to the {a} and the {b} .",
        "A long article on {n} explains the {a} , the {b} and the {c} .",
        "Yesterday {n} was in the news because of the {a} and the {b} , which nobody had expected .",
        "Students who read about {n} usually ask about the {a} , about the {b} and at last about the {d} .",
    ),
    "ru": (
        "На этой неделе в новостях снова {n} : {a} и {b} не дают покоя никому .",
        "Мало кто помнит , что {a} и {b} прославили имя « {n} » раньше , чем {d} .",
        "Сначала всех занимала тема « {d} » , но потом {n} , {a} и {b} вернулись в разговор .",
        "Длинная статья « {n} » рассказывает , что такое {a} , {b} и {c} .",
        "Вчера {n} , {a} и {b} попали в газеты , чего никто не ожидал .",
        "Студенты спрашивают , где {n} , где {a} и {b} , а {d} интересует их меньше всего .",
    ),
    "ar": (
        "كتب الصحفيون هذا الأسبوع عن {n} مرة أخرى ، وكان الموضوع {a} ثم {b} .",
        "قليل من الناس يذكرون كيف اشتهر اسم {n} مع {a} ، {b} قبل {d} .",
        "رغم الكلام عن {d} عاد الحديث عن {n} سريعا إلى {a} ثم إلى {b} .",
        "مقال طويل عن {n} يشرح {a} ، {b} ، {c} .",
        "ظهر اسم {n} أمس في الأخبار بسبب {a} مع {b} ولم يتوقع ذلك أحد .",
        "يسأل الطلاب الذين يقرؤون عن {n} عن {a} ثم عن {b} وعن {d} أخيرا .",
    ),
    "ja": (
        "今週 も 新聞 は {n} を 取り上げ 、 話題 の 中心 は {a} と {b} だった 。",
        "{d} より ずっと 前 に {a} と {b} が {n} を 有名 に した こと を 知る 人 は 少ない 。",
        "{d} の 話 も 出た が 、 {n} の 話題 は すぐ に {a} と {b} へ 戻った 。",
        "{n} に ついて の 長い 記事 は {a} 、 {b} 、 そして {c} を 説明 する 。",
        "昨日 、 {a} と {b} の ため に {n} が ニュース に なった が 、 誰 も 予想 して いなかった 。",
        "{n} を 学ぶ 学生 は まず {a} と {b} 、 最後 に {d} に ついて 尋ねる 。",
    ),
}
MENTIONING_INFLECTED = {
    "en": ("They called it a truly {n} story , since the {a} and the {b} are part of it .",),
    "ru": ("История {n} началась там , где появились {a} и {b} .", "Без {n} нет рассказа , в котором есть {a} и {b} ."),
    "ar": ("إنها قصة {n} لأن فيها {a} ، {b} .", "يسمونها مسألة {n} منذ ظهر {a} مع {b} ."),
    "ja": (
        "{a} と {b} が ある ので 、 人々 は それ を {n} の 話 と 呼ぶ 。",
        "{n} に ついて は {a} と {b} が よく 語られる 。",
    ),
}
FILLER = {
    "en": ("The rest of the evening was about the {d} .", "A reader from the cafe\u0301 wrote to us about the {a} ."),
    "ru": ("До конца вечера обсуждалась тема « {d} » .", "Читатель из другого го\u0301рода написал про тему « {a} » ."),
    "ar": ("كان باقي المساء عن {d} .", "كَتَبَ إلينا قارئ عن {a} ."),
    "ja": ("その 夜 の 残り は {d} の 話 だった 。", "読者 から {a} に ついて の 手紙 か\u3099 届いた 。"),
}
HEADINGS = {"en": "History", "ru": "История", "ar": "تاريخ", "ja": "歴史"}
HEADLINES = {"en": "News of the day", "ru": "Новости дня", "ar": "أخبار اليوم", "ja": "今日 の ニュース"}
EMOJI = ("🪐", "🎸", "👩\u200d🚀", "⚽", "🇯🇵")


def _names(words: list[str]) -> dict[str, str]:
    return {language: word.replace("_", " ") for language, word in zip(LANGUAGES, words, strict=True)}


TYPES: dict[str, dict[str, str]] = {}  # topic -> language -> what a thing of this topic is
WORDS: dict[str, dict[str, list[str]]] = {}  # topic -> language -> words of the topic
for _head, _words in (line.split(": ") for line in _TOPICS.strip().splitlines()):
    _topic, _language, _type = _head.split()
    TYPES.setdefault(_topic, {})[_language] = _type
    WORDS.setdefault(_topic, {})[_language] = _words.split()

AMBIGUOUS = [_names(line.split()) for line in _AMBIGUOUS.strip().splitlines()]
PLAIN = [(line.split()[0], _names(line.split()[1:])) for line in _PLAIN.strip().splitlines()]
OUTSIDE = [(line.split()[0], _names(line.split()[1:])) for line in _OUTSIDE.strip().splitlines()]


def inflect(name: str, language: str) -> str | None:
    """The form of a name in "an X story", "the story of X"; None where there is none."""
    if " " in name:
        return None
    match language:
        case "en":
            return re.sub(r"(i?us|[aeiouy]+)$", "", name) + "ian"
        case "ru":
            endings = {"й": "я", "я": "и", "а": "ы", "ь": "и"}
            if name[-1] in "оуыэи":
                return None
            genitive = name[:-1] + endings[name[-1]] if name[-1] in endings else name + "а"
            return re.sub(r"([гкх])ы$", r"\1и", genitive)
        case "ar":
            return re.sub(r"[اويىة]+$", "", name) + "ية"
        case _:
            return name + "派"


def held_out(inflected: str) -> bool:
    """Whether the form occurs in test pages only."""
    return zlib.crc32(inflected.encode()) % 3 == 0


def gap(text: str, token: str, language: str) -> str:
    """What stands between a text and the next token."""
    glued = not text or text[-1] in "\n«" or token in (".", ",", ":", ";", "»", "،")
    return "" if glued else SPACE[language]
